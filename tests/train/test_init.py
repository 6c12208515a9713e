"""What a training can start from."""

from pathlib import Path

import pytest
import torch

from sed_trt.cli.main import main
from sed_trt.errors import InputError
from sed_trt.model import SED, preset_named
from sed_trt.model.checkpoint import save
from sed_trt.tests.fakes.training_data import options_of, small, write_own_data
from sed_trt.train import init as initial_weights
from sed_trt.train.checkpoint import RunFolder
from sed_trt.train.config import read_settings
from sed_trt.train.init import checkpoint_kind, initial_model, reachable
from sed_trt.train.run import train


@pytest.fixture
def tiny() -> SED:
    """sed-tiny with random weights of its own."""
    torch.manual_seed(1)
    return SED(preset_named("sed-tiny"))


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


def test_sed_checkpoint_gives_everything(tmp_path: Path, tiny: SED) -> None:
    save(tiny, tmp_path / "sed.safetensors")
    model = initial_model("sed-tiny", str(tmp_path / "sed.safetensors"))
    expected = tiny.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in model.state_dict().items())


def test_published_checkpoint_is_known(base_checkpoint: Path) -> None:
    assert checkpoint_kind(base_checkpoint) == ("sed", None)


def test_checkpoint_of_another_preset_is_refused(tmp_path: Path, tiny: SED, base_checkpoint: Path) -> None:
    path = tmp_path / "sed.safetensors"
    save(tiny, path)
    with pytest.raises(InputError, match=r"is a checkpoint of sed-tiny, not of sed-b; add --preset sed-tiny"):
        initial_model("sed-b", str(path))
    with pytest.raises(InputError, match="does not fit preset sed-tiny"):
        initial_model("sed-tiny", str(base_checkpoint))
    clip = tmp_path / "clip.bin"
    torch.save(tiny.clip.state_dict(), clip)
    with pytest.raises(InputError, match=r"clip\.bin: does not fit preset sed-b"):
        initial_model("sed-b", str(clip))


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
    assert not reachable("http://127.0.0.1:9")
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


def test_checkpoint_of_a_run_is_no_start(tmp_path: Path) -> None:
    train(small(write_own_data(tmp_path / "data"), steps=1), tmp_path / "run", gpus=0)
    state = tmp_path / "run" / "checkpoints" / "step-000001" / "state.pt"
    with pytest.raises(
        InputError, match=r"state\.pt: is for --resume alone; give its run's model\.safetensors"
    ):
        initial_model("sed-tiny", str(state))


def test_a_file_called_like_a_choice_is_not_taken_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    data = write_own_data(tmp_path / "data")
    Path("random").write_text("no weights")
    options = options_of(small("data", steps=1), tmp_path / "config.yaml")
    assert main([*options, "--init", "random", "-o", "run"]) == 0
    begun = read_settings(RunFolder(Path("run")).settings)
    assert (begun["init"], begun["data"]) == ("random", str(data))
