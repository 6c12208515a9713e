"""What a run trains, logs and refuses."""

import json
import resource
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from sed_trt.cli.main import main
from sed_trt.errors import InputError
from sed_trt.model import SED, Output, preset_named
from sed_trt.model.checkpoint import save
from sed_trt.runtime.result import colours
from sed_trt.tests.fakes.training_data import NAMES, options_of, small, start
from sed_trt.train import checkpoint, samples
from sed_trt.train.checkpoint import RunFolder, positions
from sed_trt.train.config import TrainConfig, recipe
from sed_trt.train.logging import side_by_side
from sed_trt.train.loop import embeddings, segmentation_loss
from sed_trt.train.run import train

PLAIN = {"batch": 4, "lr": 1e-4, "steps": 3}
FEW = recipe(
    "sed-tiny",
    text_steps=2,
    text_batch=8,
    clip_steps=2,
    clip_batch=8,
    clip_size=64,
    steps=2,
    batch=2,
    categories=8,
    workers=0,
    log_every=1,
)


@pytest.fixture(scope="module")
def plain(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of three steps, from seed 0."""
    folder = tmp_path_factory.mktemp("runs") / "plain"
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("SED_TRT_CACHE", str(folder.parent / "cache"))
        train(small(data, **PLAIN), folder, gpus=0)
    return folder


@pytest.fixture
def few_absent_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let scenes be trained with few names that none shows: embedding hundreds takes long."""
    monkeypatch.setattr(samples, "ABSENT", samples.ABSENT[:8])


def trained(config: TrainConfig, folder: Path) -> dict[str, torch.Tensor]:
    """The weights after a run on the CPU."""
    return load_file(train(config, folder, gpus=0))


def moved(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> set[str]:
    """What differs."""
    return {name for name, value in after.items() if not torch.equal(value, before[name])}


def logged(folder: Path, name: str) -> list[float]:
    """A metric of every step of a run."""
    return [json.loads(line)[name] for line in (folder / "log.jsonl").open()]


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """Let this process write no larger files: further writes fail, as on a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_loss_is_the_published_one(generator: torch.Generator) -> None:
    maps = [torch.randn(2, 3, side, side, generator=generator) for side in (16, 2, 4, 8)]
    targets = torch.randint(0, 3, (2, 16, 16), generator=generator)
    targets[0, :3] = -1
    one_hot = torch.stack([(targets == category).float() for category in range(3)], 1)
    expected = []
    for each in maps:
        sized = F.interpolate(each, size=(16, 16), mode="bilinear", align_corners=False)
        probability = torch.sigmoid(sized)
        entropy = -(one_hot * probability.log() + (1 - one_hot) * (1 - probability).log())
        expected.append(entropy.mean().item())
    output = Output(maps[0], (maps[1], maps[2], maps[3]))
    assert segmentation_loss(output, targets).item() == pytest.approx(sum(expected), rel=1e-5)
    aux = segmentation_loss(output, targets, last_head=False)
    assert aux.item() == pytest.approx(sum(expected[1:]), rel=1e-5)


def test_layer_scale_of_the_decoder_starts_at_one() -> None:
    with torch.device("meta"):
        names = {name for name, _ in SED(preset_named("sed-b")).named_parameters()}
    scales = {f"decoder.decoder{number}.cnext.gamma" for number in (1, 2, 3)}
    assert scales <= names
    fresh = dict(SED(preset_named("sed-tiny")).named_parameters())
    assert all((fresh[name] == 1).all() for name in scales)


def test_aux_heads_do_not_shape_the_features(tiny_model: SED) -> None:
    text = F.normalize(torch.ones(2, len(tiny_model.templates), tiny_model.preset.embed_dim), dim=-1)
    output = tiny_model(torch.zeros(1, 16, 16, 3, dtype=torch.uint8), text)
    output.aux[0].sum().backward()
    assert tiny_model.decoder.head0.weight.grad is not None
    assert tiny_model.decoder.conv1.weight.grad is None
    tiny_model.zero_grad()


def test_only_the_heads_of_rejection_train(tmp_path: Path, data: Path, start_weights: Path) -> None:
    after = trained(small(data, init=str(start_weights), train="heads", steps=2), tmp_path / "run")
    heads = {f"decoder.head{number}.{kind}" for number in range(3) for kind in ("weight", "bias")}
    assert moved(load_file(start_weights), after) == heads
    # The last head does not train, so its loss does not count.
    train(small(data, init=str(start_weights), steps=1), tmp_path / "all", gpus=0)
    assert logged(tmp_path / "run", "loss")[0] < logged(tmp_path / "all", "loss")[0] - 0.1


def test_frozen_parts_stay(tmp_path: Path, data: Path, start_weights: Path) -> None:
    before = load_file(start_weights)
    settings = {"init": str(start_weights), "steps": 2}
    after = trained(small(data, freeze=("encoder",), **settings), tmp_path / "encoder")
    assert {name.split(".")[0] for name in moved(before, after)} == {"decoder"}
    after = trained(small(data, freeze=("decoder", "res2"), **settings), tmp_path / "decoder")
    changed = moved(before, after)
    assert changed and all(name.startswith("clip.visual.") for name in changed)
    assert not any(".stem." in name or ".stages.0." in name for name in changed)


def test_guidance_shapes_the_encoder_only_where_wanted(
    tmp_path: Path, data: Path, start_weights: Path
) -> None:
    # The stem also gets gradients through the embedding, but others.
    settings = {"init": str(start_weights), "steps": 1, "freeze": ("decoder",)}
    free = trained(small(data, guidance_gradient=True, **settings), tmp_path / "free")
    cut = trained(small(data, guidance_gradient=False, **settings), tmp_path / "cut")
    assert any(name.startswith("clip.visual.trunk.stem") for name in moved(free, cut))


def test_micro_batches_and_recomputation_change_nothing(
    tmp_path: Path, data: Path, plain: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = load_file(plain / "model.safetensors")
    # `accelerate launch` may set it; the loop counts its micro-batches itself.
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "2")
    for name, changes in (("micro", {"accumulate": 2}), ("again", {"checkpointing": True})):
        other = trained(small(data, **PLAIN, **changes), tmp_path / name)
        assert max((expected[key] - other[key]).abs().max().item() for key in expected) < 1e-5
        # The weights alone would not show a wrong scale: clipping and Adam both take it out.
        assert logged(tmp_path / name, "grad_norm") == pytest.approx(logged(plain, "grad_norm"), rel=1e-4)


def test_checkpointing_keeps_no_activations_of_the_trunk() -> None:
    model = SED(preset_named("sed-tiny")).train()
    calls = []
    trunk = model.clip.visual.trunk
    trunk.stages[1].blocks[0].register_forward_pre_hook(lambda *_: calls.append(1))
    trunk.set_grad_checkpointing(True)
    text = torch.nn.functional.normalize(torch.ones(2, len(model.templates), 128), dim=-1)
    model(torch.zeros(1, 32, 32, 3, dtype=torch.uint8), text).logits.sum().backward()
    assert len(calls) == 2


def test_bf16_trains_alike(tmp_path: Path, data: Path, plain: Path) -> None:
    config = small(data, **PLAIN, mixed_precision="bf16")
    # Accelerate has one precision for each process.
    child = start([*options_of(config, tmp_path / "bf16.yaml"), "-o", str(tmp_path / "run")])
    assert child.communicate()[1].count("\n") == 3
    assert child.returncode == 0
    losses, exact = logged(tmp_path / "run", "loss"), logged(plain, "loss")
    assert losses == pytest.approx(exact, rel=0.02) and losses != exact


def test_workers_change_nothing_and_seeds_do(tmp_path: Path, data: Path, plain: Path) -> None:
    expected = load_file(plain / "model.safetensors")
    assert not moved(expected, trained(small(data, **PLAIN, workers=1), tmp_path / "workers"))
    assert moved(expected, trained(small(data, **PLAIN, seed=2), tmp_path / "seed"))


def test_names_are_embedded_once(tmp_path: Path, data: Path, start_weights: Path) -> None:
    config = small(data, steps=1, init=str(start_weights))
    first = trained(config, tmp_path / "one")
    (path,) = (tmp_path / "cache" / "text").glob("*.sqlite")
    content = cached(path)
    assert {name: len(embedding) for name, embedding in content.items()} == dict.fromkeys(NAMES, 8 * 128 * 4)
    written = path.stat().st_mtime_ns
    assert not moved(first, trained(config, tmp_path / "two"))
    assert path.stat().st_mtime_ns == written
    path.write_bytes(b"damaged")
    assert not moved(first, trained(config, tmp_path / "three"))
    assert cached(path) == content


def cached(path: Path) -> dict[str, bytes]:
    """The embeddings in a cache."""
    with closing(sqlite3.connect(path)) as database:
        return dict(database.execute("SELECT name, embedding FROM embeddings"))


def test_embeddings_resume_bit_exactly(tmp_path: Path, tiny: SED) -> None:
    names = [f"thing {number}" for number in range(70)]
    whole = embeddings(tiny, names)
    assert whole.shape == (70, 8, 128) and tiny.training
    torch.testing.assert_close(whole, tiny.eval().encode_vocabulary(names), rtol=0, atol=1e-6)
    tiny.train()
    (path,) = (tmp_path / "cache" / "text").glob("*.sqlite")
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("DELETE FROM embeddings WHERE name LIKE '%3%'")
    assert torch.equal(embeddings(tiny, names), whole)


def test_run_logs_and_reports(tmp_path: Path, data: Path) -> None:
    reports = []
    config = small(data, steps=4, log_every=2, picture_every=3, save_every=3)
    run = RunFolder(tmp_path / "run")
    train(config, run.path, gpus=0, report=lambda *each: reports.append(each))
    assert [each[:3] for each in reports] == [("step", 2, 4), ("step", 4, 4)]
    lines = [json.loads(line) for line in run.log.read_text().splitlines()]
    wanted = ("phase", "step", "seconds", "loss", "lr", "grad_norm", "accuracy", "images_per_second")
    assert [set(line) for line in lines] == [set(wanted)] * 2
    assert lines[0]["lr"] == pytest.approx(1e-3 * 0.5 * (1 + np.cos(np.pi / 4)))
    board = EventAccumulator(str(run.tensorboard), size_guidance={"images": 0}).Reload()
    assert [event.value for event in board.Scalars("step/loss")] == pytest.approx([x["loss"] for x in lines])
    shown = board.Images("step/image, truth, prediction")
    assert [(event.step, event.width, event.height) for event in shown] == [(3, 96, 32)]
    assert [each.step for each in positions(run.checkpoints)] == [3, 4]


def test_logged_image_shows_image_truth_and_prediction() -> None:
    image = np.full((8, 8, 3), 9, dtype=np.uint8)
    truth = np.repeat([[0], [1], [-1], [0]], 4, axis=1)
    drawn = side_by_side(image, truth, np.ones((2, 2), dtype=np.int64), np.array([4, 2]), 6)
    assert drawn.shape == (8, 24, 3)
    palette = colours(6)
    assert (drawn[:, :8] == 9).all() and (drawn[:, 16:] == palette[2]).all()
    assert (drawn[0, 8:16] == palette[4]).all() and (drawn[2, 8:16] == palette[2]).all()
    assert (drawn[4, 8:16] == 0).all()


def test_loss_that_is_no_number_names_the_images(tmp_path: Path, data: Path) -> None:
    with pytest.raises(
        InputError, match=r"the loss is nan at step \d, with .*/images/\d\.png, .*/images/\d\.png; look at"
    ):
        train(small(data, lr=1e30), tmp_path / "run", gpus=0)


def contents(folder: Path) -> dict[Path, bytes]:
    """Every file in a folder."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_full_disk_leaves_the_checkpoint_before(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = RunFolder(tmp_path / "run")
    train(small(data, steps=2, save_every=1), run.path, gpus=0)
    before = contents(run.checkpoints)
    run.settings.write_text(run.settings.read_text().replace("steps: 2\n", "steps: 3\n"))

    def resume_on_a_full_disk(reason: str) -> None:
        message = rf"step-000003: the checkpoint cannot be written \({reason}.*\); step-000002 is whole; make"
        with files_of_at_most(1_000_000), pytest.raises(InputError, match=message):
            train(small(data, steps=3, save_every=1), run.path, resume=True, gpus=0)
        assert contents(run.checkpoints) == before
        assert sorted(path.name for path in run.checkpoints.iterdir()) == ["step-000001", "step-000002"]

    resume_on_a_full_disk("[^)]*too large")
    with monkeypatch.context() as patched:
        # The network is written first; here there is room for it, but not for the optimizer.
        patched.setattr(checkpoint, "save", lambda model, path: path.touch())
        resume_on_a_full_disk("PyTorch's writer failed, as it does on a full disk")
    train(small(data, steps=3, save_every=1), run.path, resume=True, gpus=0)
    assert [each.step for each in positions(run.checkpoints)] == [2, 3]


def test_full_disk_at_the_end_leaves_no_half_weights(tmp_path: Path) -> None:
    with files_of_at_most(1_000_000), pytest.raises(InputError, match=r"x\.safetensors: cannot be written"):
        save(SED(preset_named("sed-tiny")), tmp_path / "x.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_output_that_cannot_be_written_is_refused(tmp_path: Path, data: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is a file; a run is a folder"):
        train(small(data), tmp_path / "file", gpus=0)
    with pytest.raises(InputError, match="run: cannot be made"):
        train(small(data), tmp_path / "file" / "run", gpus=0)
    with pytest.raises(InputError, match=r"a run is a folder, which gets model\.safetensors; name it .*/x$"):
        train(small(data), tmp_path / "x.safetensors", gpus=0)


def test_what_is_missing_leaves_nothing_behind(tmp_path: Path, data: Path) -> None:
    with pytest.raises(InputError, match="neither a file"):
        train(small(data, init=str(tmp_path / "none.safetensors")), tmp_path / "run", gpus=0)
    with pytest.raises(InputError, match="nowhere"):
        train(small(tmp_path / "nowhere"), tmp_path / "run", gpus=0)
    with pytest.raises(InputError, match="with encoder, decoder frozen leaves nothing to train"):
        train(small(data, freeze=("encoder", "decoder"), text_steps=1), tmp_path / "run", gpus=0)
    assert [path.name for path in tmp_path.iterdir() if path.name != "cache"] == []


def test_command_line_reports_errors_and_trains(
    tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = options_of(small(data, steps=2), tmp_path / "config.yaml")
    folder = str(tmp_path / "run")
    assert main([*options, "-o", folder, "--set", "stepz=3"]) == 2
    assert "'stepz' is no setting; choose from" in capsys.readouterr().err
    assert main([*options, "-o", folder, "--resume"]) == 2
    assert "holds no run to go on with" in capsys.readouterr().err
    assert main([*options, "-o", folder, "--set", "root=elsewhere"]) == 0
    captured = capsys.readouterr()
    first, second = captured.out.splitlines()
    assert first == f"trained: {folder}/model.safetensors"
    assert second.startswith("speed: ") and " images/s" in second
    # A run may be resumed from another working directory.
    assert RunFolder(Path(folder)).read()["root"] == str(Path("elsewhere").absolute())
    assert "step 2/2, 0:00:00 left: loss" in captured.err
    assert main(["train", "--resume", "-o", folder, "--gpus", "0"]) == 0
    assert main(["train", "--resume", "-o", folder, "--gpus", "0", "--batch", "3"]) == 2
    assert "was started with batch 2, not 3" in capsys.readouterr().err


def test_training_on_scenes_ends_with_their_miou(
    tmp_path: Path, few_absent_names: None, capsys: pytest.CaptureFixture[str]
) -> None:
    config = small("scenes", crop=64, short_side=None, steps=1, batch=1)
    options = options_of(config, tmp_path / "config.yaml")
    assert main([*options, "-o", str(tmp_path / "run"), "--scenes", "1"]) == 0
    first, *table = capsys.readouterr().out.splitlines()
    assert first.startswith("trained: ")
    assert any("mIoU" in line for line in table)


def test_short_run_trains_what_it_should(tmp_path: Path, few_absent_names: None) -> None:
    run = RunFolder(tmp_path / "deep" / "run")
    trained = SED.from_checkpoint(train(FEW, run.path, gpus=0)).state_dict()
    before = SED.from_checkpoint(run.clip).state_dict()
    moved = {name for name, value in trained.items() if not torch.equal(value, before[name].half().float())}
    assert any(name.startswith("decoder.") for name in moved)
    assert any(name.startswith("clip.visual.") for name in moved)
    # The text tower is frozen while SED trains.
    assert not any(name.startswith("clip.") and not name.startswith("clip.visual.") for name in moved)
    lines = [json.loads(line) for line in run.log.read_text().splitlines()]
    assert [line["phase"] for line in lines] == ["text", "text", "clip", "clip", "step", "step"]
    assert all(np.isfinite(line["loss"]) for line in lines)
    assert recipe(**run.read()) == FEW
