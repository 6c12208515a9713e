"""What a training can start from."""

from pathlib import Path

import pytest
import torch

from sed_trt.cli.main import main
from sed_trt.errors import InputError
from sed_trt.model import SED
from sed_trt.model.checkpoint import published_name
from sed_trt.tests.fakes.training_data import options_of, small, write_own_data
from sed_trt.train import init as initial_weights
from sed_trt.train.checkpoint import RunFolder
from sed_trt.train.init import checkpoint_kind, initial_model, is_reachable
from sed_trt.train.run import train


def assert_same_clip(model: SED, other: SED) -> None:
    """The CLIP of both is equal."""
    expected = other.clip.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in model.clip.state_dict().items())


@pytest.mark.parametrize("form", ["plain", "training", "safetensors"])
def test_open_clip_checkpoint_gives_the_clip(tmp_path: Path, tiny: SED, form: str) -> None:
    weights = tiny.clip.state_dict()
    path = tmp_path / ("clip.safetensors" if form == "safetensors" else "clip.bin")
    if form == "safetensors":
        from safetensors.torch import save_file

        save_file(weights, path)
    elif form == "training":
        torch.save({"epoch": 3, "state_dict": {f"module.{k}": v for k, v in weights.items()}}, path)
    else:
        torch.save(weights, path)
    torch.manual_seed(2)
    model = initial_model("sed-tiny", str(path))
    assert_same_clip(model, tiny)
    assert not torch.equal(model.decoder.conv1.weight, tiny.decoder.conv1.weight)


def test_sed_checkpoint_gives_everything(start_weights: Path, tiny: SED) -> None:
    model = initial_model("sed-tiny", str(start_weights))
    expected = tiny.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in model.state_dict().items())


def write_published(tiny: SED, path: Path, stem: torch.Tensor | None = None) -> Path:
    """A checkpoint of sed-tiny in the published format, perhaps with another stem."""
    weights = {published_name(name): value for name, value in tiny.state_dict().items()}
    if stem is not None:
        weights[published_name("clip.visual.trunk.stem.0.weight")] = stem
    torch.save({"model": weights, "iteration": 7}, path)
    return path


def test_published_checkpoint_gives_everything(tmp_path: Path, tiny: SED) -> None:
    path = write_published(tiny, tmp_path / "sed.pth")
    assert checkpoint_kind(path) == ("sed", None)
    model = initial_model("sed-tiny", str(path))
    expected = tiny.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in model.state_dict().items())


def test_checkpoint_of_another_preset_is_refused(tmp_path: Path, tiny: SED, start_weights: Path) -> None:
    with pytest.raises(InputError, match=r"is a checkpoint of sed-tiny, not of sed-b; add --preset sed-tiny"):
        initial_model("sed-b", str(start_weights))
    published = write_published(tiny, tmp_path / "sed.pth", stem=torch.zeros(128, 3, 4, 4))
    with pytest.raises(InputError, match=r"sed\.pth: does not fit preset sed-tiny: 1 misshapen \(.*stem"):
        initial_model("sed-tiny", str(published))
    weights = tiny.clip.state_dict()
    torch.save(weights | {"visual.trunk.stem.0.weight": torch.zeros(128, 3, 4, 4)}, tmp_path / "clip.bin")
    with pytest.raises(InputError, match=r"clip\.bin: does not fit preset sed-tiny: 1 misshapen \(.*stem"):
        initial_model("sed-tiny", str(tmp_path / "clip.bin"))


@pytest.mark.parametrize("name", ["x.safetensors", "x.bin", "x.pth"])
def test_damaged_checkpoint_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"\x80damaged")
    with pytest.raises(InputError, match="cannot be read as a checkpoint"):
        initial_model("sed-tiny", str(tmp_path / name))


def test_unknown_tag_is_refused() -> None:
    with pytest.raises(InputError, match="neither a file nor weights for sed-b; choose one of random, laion"):
        initial_model("sed-b", "laion_nothing")
    with pytest.raises(InputError, match=r"none\.safetensors: neither a file"):
        initial_model("sed-tiny", "none.safetensors")


def test_hub_out_of_reach_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(initial_weights.constants, "HF_HUB_CACHE", str(tmp_path))
    # A port of this machine at which nothing answers.
    monkeypatch.setattr(initial_weights.constants, "ENDPOINT", "http://127.0.0.1:9")
    assert not is_reachable("http://127.0.0.1:9")
    with pytest.raises(
        InputError, match=r"127\.0\.0\.1:9 cannot be reached; download laion/CLIP-convnext_base_w"
    ):
        initial_model("sed-b", "laion_aesthetic_s13b_b82k")


def test_kept_weights_need_no_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(initial_weights.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(initial_weights.constants, "ENDPOINT", "http://127.0.0.1:9")
    repository = tmp_path / "models--laion--CLIP-convnext_base_w_320-laion_aesthetic-s13B-b82K"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0123")
    kept = repository / "snapshots" / "0123" / "open_clip_pytorch_model.bin"
    kept.parent.mkdir(parents=True)
    torch.save({"visual.trunk.stem.0.weight": torch.zeros(1)}, kept)
    with pytest.raises(InputError, match=r"open_clip_pytorch_model\.bin: does not fit preset sed-b"):
        initial_model("sed-b", "laion_aesthetic_s13b_b82k")


def test_heads_need_a_trained_network(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="train heads: needs a trained SED, init is random"):
        train(small("scenes", crop=64, short_side=None, train="heads"), tmp_path / "run", gpus=0)
    assert not (tmp_path / "run").exists()


def test_heads_need_more_than_a_trained_clip(tmp_path: Path, tiny: SED) -> None:
    path = tmp_path / "clip.bin"
    torch.save(tiny.clip.state_dict(), path)
    with pytest.raises(InputError, match=r"train heads: needs a trained SED, init is .*clip\.bin"):
        train(
            small("scenes", crop=64, short_side=None, train="heads", init=str(path)), tmp_path / "run", gpus=0
        )
    assert not (tmp_path / "run").exists()


def test_checkpoint_of_a_run_is_a_start(tmp_path: Path, data: Path) -> None:
    train(small(data, steps=1), tmp_path / "run", gpus=0)
    path = tmp_path / "run" / "checkpoints" / "step-000001" / "model.safetensors"
    trained = SED.from_checkpoint(tmp_path / "run" / "model.safetensors").state_dict()
    model = initial_model("sed-tiny", str(path))
    assert all(torch.equal(value, trained[name]) for name, value in model.state_dict().items())


def test_file_without_weights_is_refused(tmp_path: Path) -> None:
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(InputError, match=r"list\.pt: holds no weights by name; give an open_clip or SED"):
        initial_model("sed-tiny", str(tmp_path / "list.pt"))


def test_a_file_called_like_a_choice_is_not_taken_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    data = write_own_data(tmp_path / "data")
    Path("random").write_text("no weights")
    options = options_of(small("data", steps=1), tmp_path / "config.yaml")
    assert main([*options, "--init", "random", "-o", "run"]) == 0
    settings = RunFolder(Path("run")).read()
    assert (settings["init"], settings["data"]) == ("random", str(data))
