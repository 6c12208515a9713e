"""What a run trains, tells and refuses."""

import json
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from sed_trt.cli.main import main
from sed_trt.errors import InputError
from sed_trt.model import SED, preset_named
from sed_trt.model.checkpoint import save
from sed_trt.runtime.result import colours
from sed_trt.tests.fakes.training_data import NAMES, options_of, small, start, write_own_data
from sed_trt.train.checkpoint import RunFolder, points
from sed_trt.train.config import TrainConfig, read_settings
from sed_trt.train.distributed import check_processes
from sed_trt.train.logging import side_by_side
from sed_trt.train.optim import published_groups
from sed_trt.train.run import train


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A small own data set."""
    return write_own_data(tmp_path / "data")


@pytest.fixture
def begun(tmp_path: Path) -> Path:
    """A checkpoint of sed-tiny with random weights."""
    torch.manual_seed(5)
    save(SED(preset_named("sed-tiny")), tmp_path / "begun.safetensors")
    return tmp_path / "begun.safetensors"


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


def test_only_the_heads_of_rejection_train(tmp_path: Path, data: Path, begun: Path) -> None:
    after = trained(small(data, init=str(begun), train="heads", steps=2), tmp_path / "run")
    heads = {f"decoder.head{number}.{kind}" for number in range(3) for kind in ("weight", "bias")}
    assert moved(load_file(begun), after) == heads
    # The last head does not train, so its loss does not count.
    train(small(data, init=str(begun), steps=1), tmp_path / "all", gpus=0)
    assert logged(tmp_path / "run", "loss")[0] < logged(tmp_path / "all", "loss")[0] - 0.1


def test_frozen_parts_stay(tmp_path: Path, data: Path, begun: Path) -> None:
    before = load_file(begun)
    after = trained(small(data, init=str(begun), freeze=("encoder",), steps=2), tmp_path / "encoder")
    assert {name.split(".")[0] for name in moved(before, after)} == {"decoder"}
    after = trained(small(data, init=str(begun), freeze=("decoder", "res2"), steps=2), tmp_path / "decoder")
    changed = moved(before, after)
    assert changed and all(name.startswith("clip.visual.") for name in changed)
    assert not any(".stem." in name or ".stages.0." in name for name in changed)


def test_guidance_shapes_the_encoder_only_where_wanted(tmp_path: Path, data: Path, begun: Path) -> None:
    # The stem also gets gradients through the embedding, but others.
    settings = {"init": str(begun), "steps": 1, "freeze": ("decoder",)}
    free = trained(small(data, guidance_gradient=True, **settings), tmp_path / "free")
    cut = trained(small(data, guidance_gradient=False, **settings), tmp_path / "cut")
    assert any(name.startswith("clip.visual.trunk.stem") for name in moved(free, cut))


def test_parts_of_a_step_and_recomputation_change_nothing(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = trained(small(data, batch=4, lr=1e-4), tmp_path / "plain")
    # `accelerate launch` may set it; the loop counts its parts itself.
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "2")
    for name, changes in (("parts", {"accumulate": 2}), ("again", {"checkpointing": True})):
        other = trained(small(data, batch=4, lr=1e-4, **changes), tmp_path / name)
        assert max((plain[key] - other[key]).abs().max().item() for key in plain) < 1e-5
        # The weights alone would not show a wrong scale: clipping and Adam both take it out.
        norms = logged(tmp_path / "plain", "grad_norm")
        assert logged(tmp_path / name, "grad_norm") == pytest.approx(norms, rel=1e-4)


def test_checkpointing_keeps_no_activations_of_the_trunk() -> None:
    model = SED(preset_named("sed-tiny")).train()
    calls = []
    trunk = model.clip.visual.trunk
    trunk.stages[1].blocks[0].register_forward_pre_hook(lambda *_: calls.append(1))
    trunk.set_grad_checkpointing(True)
    text = torch.nn.functional.normalize(torch.ones(2, len(model.templates), 128), dim=-1)
    model(torch.zeros(1, 32, 32, 3, dtype=torch.uint8), text).logits.sum().backward()
    assert len(calls) == 2


def test_bf16_trains_alike(tmp_path: Path, data: Path) -> None:
    config = small(data, mixed_precision="bf16", steps=3)
    child = start([*options_of(config, tmp_path / "bf16.yaml"), "-o", str(tmp_path / "run")])
    assert child.communicate()[1].count("\n") == 3
    assert child.returncode == 0
    losses = logged(tmp_path / "run", "loss")
    single = small(data, steps=3)
    train(single, tmp_path / "single", gpus=0)
    exact = logged(tmp_path / "single", "loss")
    assert losses == pytest.approx(exact, rel=0.02) and losses != exact


def test_workers_change_nothing(tmp_path: Path, data: Path) -> None:
    one = trained(small(data, steps=2), tmp_path / "one")
    assert not moved(one, trained(small(data, steps=2, workers=1), tmp_path / "two"))


def test_seeds_differ(tmp_path: Path, data: Path) -> None:
    one = trained(small(data, steps=1, seed=1), tmp_path / "one")
    assert moved(one, trained(small(data, steps=1, seed=2), tmp_path / "two"))


def test_names_are_embedded_once(tmp_path: Path, data: Path, begun: Path) -> None:
    config = small(data, steps=1, init=str(begun))
    first = trained(config, tmp_path / "one")
    kept = list((tmp_path / "cache" / "training").iterdir())
    assert len(kept) == 1
    content = load_file(kept[0])["text"]
    assert content.shape == (len(NAMES), 8, 128)
    written = kept[0].stat().st_mtime_ns
    assert not moved(first, trained(config, tmp_path / "two"))
    assert kept[0].stat().st_mtime_ns == written
    # The file is mapped into memory here, so it must not be cut short in place.
    kept[0].unlink()
    kept[0].write_bytes(b"damaged")
    assert not moved(first, trained(config, tmp_path / "three"))
    assert torch.equal(load_file(kept[0])["text"], content)


def test_run_tells_what_it_does(tmp_path: Path, data: Path) -> None:
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
    assert [each.step for each in points(run.checkpoints)] == [3, 4]


def test_picture_shows_image_truth_and_prediction() -> None:
    image = np.full((8, 8, 3), 9, dtype=np.uint8)
    truth = np.repeat([[0], [1], [-1], [0]], 4, axis=1)
    picture = side_by_side(image, truth, np.ones((2, 2), dtype=np.int64), np.array([4, 2]), 6)
    assert picture.shape == (8, 24, 3)
    palette = colours(6)
    assert (picture[:, :8] == 9).all() and (picture[:, 16:] == palette[2]).all()
    assert (picture[0, 8:16] == palette[4]).all() and (picture[2, 8:16] == palette[2]).all()
    assert (picture[4, 8:16] == 0).all()


def test_norms_do_not_decay_and_everything_else_does() -> None:
    model = SED(preset_named("sed-tiny"))
    groups = published_groups(model.decoder, 1.0, 0.5) + published_groups(model.clip.visual, 0.1, 0.5)
    decay = {id(p): group["weight_decay"] for group in groups for p in group["params"]}  # type: ignore[attr-defined]
    named = dict(model.named_parameters())
    assert len(decay) == sum(name.startswith(("decoder.", "clip.visual.")) for name in named)
    trunk = "clip.visual.trunk."
    for name in ("decoder.decoder1.attention.norm1.weight", f"{trunk}stages.1.blocks.0.norm.bias"):
        assert decay[id(named[name])] == 0
    assert decay[id(named["decoder.decoder2.conv.double_conv.1.weight"])] == 0
    for name in ("decoder.head.bias", f"{trunk}stages.1.blocks.0.gamma", f"{trunk}stem.0.weight"):
        assert decay[id(named[name])] == 0.5


def test_loss_that_is_no_number_names_the_pictures(tmp_path: Path, data: Path) -> None:
    with pytest.raises(
        InputError, match=r"the loss is nan at step \d, with .*/images/\d\.png, .*/images/\d\.png; look at"
    ):
        train(small(data, lr=1e30), tmp_path / "run", gpus=0)


def test_full_disk_leaves_the_checkpoint_before(tmp_path: Path, data: Path) -> None:
    run = RunFolder(tmp_path / "run")
    train(small(data, steps=2, save_every=1), run.path, gpus=0)
    before = {path: path.read_bytes() for path in run.checkpoints.rglob("*.pt")}
    run.settings.write_text(run.settings.read_text().replace("steps: 2\n", "steps: 3\n"))
    message = r"step-000003: the checkpoint cannot be written \(.*\); step-000002 is whole; make room"
    with files_of_at_most(1_000_000), pytest.raises(InputError, match=message):
        train(small(data, steps=3, save_every=1), run.path, resume=True, gpus=0)
    assert {path: path.read_bytes() for path in run.checkpoints.rglob("*.pt")} == before
    assert sorted(path.name for path in run.checkpoints.iterdir()) == ["step-000001", "step-000002"]
    train(small(data, steps=3, save_every=1), run.path, resume=True, gpus=0)
    assert [each.step for each in points(run.checkpoints)] == [2, 3]


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
    with pytest.raises(InputError, match="encoder, decoder frozen leaves nothing to train"):
        train(small(data, freeze=("encoder", "decoder"), text_steps=1), tmp_path / "run", gpus=0)
    assert [path.name for path in tmp_path.iterdir() if path.name != "cache"] == ["data"]


def test_processes_that_do_not_fit_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    config = small("x", batch=6, accumulate=2)
    check_processes(config, None)
    found = torch.cuda.device_count()
    with pytest.raises(InputError, match=f"--gpus {found + 1}: this machine has {found} GPUs"):
        check_processes(config, found + 1)
    with pytest.raises(InputError, match="fp16: needs a GPU; choose no or bf16"):
        check_processes(small("x", mixed_precision="fp16"), 0)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(
        InputError, match="batch is 6; it must be a multiple of processes x accumulate, 2 x 2"
    ):
        check_processes(config, 0)


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
    # A run may go on from another folder.
    assert read_settings(RunFolder(Path(folder)).settings)["root"] == str(Path("elsewhere").absolute())
    assert "step 2/2, 0:00:00 left: loss" in captured.err
    assert main(["train", "--resume", "-o", folder, "--gpus", "0"]) == 0
    assert main(["train", "--resume", "-o", folder, "--gpus", "0", "--batch", "3"]) == 2
    assert "was begun with batch 2, not 3" in capsys.readouterr().err


def test_training_on_scenes_ends_with_their_miou(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = small("scenes", crop=64, short_side=None, steps=1, batch=1)
    options = options_of(config, tmp_path / "config.yaml")
    assert main([*options, "-o", str(tmp_path / "run"), "--scenes", "1"]) == 0
    first, *table = capsys.readouterr().out.splitlines()
    assert first.startswith("trained: ")
    assert any("mIoU" in line for line in table)
