"""Checkpoints that load, and the errors for those that do not."""

import json
import random
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from sed_trt.benchmarks.known_weights import write_known_checkpoint
from sed_trt.errors import InputError
from sed_trt.model import PRESETS, SED
from sed_trt.model.checkpoint import published_name, save
from sed_trt.tests.fakes.golden import DATA


def published_tiny(model: SED) -> dict[str, torch.Tensor]:
    """sed-tiny's weights under published names."""
    return {published_name(name): value for name, value in model.state_dict().items()}


def test_published_format_loads_and_its_preset_is_recognised(tiny_model: SED, tmp_path: Path) -> None:
    torch.save({"model": published_tiny(tiny_model), "iteration": 7}, tmp_path / "tiny.pth")
    loaded = SED.from_checkpoint(tmp_path / "tiny.pth")
    assert loaded.preset is PRESETS["sed-tiny"]
    assert not loaded.training
    for name, value in tiny_model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name


def test_loading_sets_what_is_not_in_the_checkpoint_and_draws_no_random_numbers(
    tiny_checkpoint: Path,
) -> None:
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    loaded = SED.from_checkpoint(tiny_checkpoint)
    assert torch.equal(torch.rand(1), expected)
    built = SED(loaded.preset)
    extra = dict(built.named_buffers()).keys() - built.state_dict().keys()
    assert extra == {"clip.attn_mask"}
    assert torch.equal(loaded.clip.attn_mask, built.clip.attn_mask)


def test_known_weights_are_a_published_checkpoint(tmp_path: Path) -> None:
    model = SED.from_checkpoint(write_known_checkpoint(tmp_path / "known.pth", "sed-tiny"))
    assert model.preset is PRESETS["sed-tiny"]
    with pytest.raises(InputError, match="'sed-x' is not known"):
        write_known_checkpoint(tmp_path / "odd.pth", "sed-x")


def test_own_format_keeps_every_bit(tiny_model: SED, tmp_path: Path) -> None:
    save(tiny_model, tmp_path / "again.safetensors")
    loaded = SED.from_checkpoint(tmp_path / "again.safetensors")
    for name, value in tiny_model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name
    assert [path.name for path in tmp_path.iterdir()] == ["again.safetensors"]


def test_half_stored_weights_are_single_once_loaded(tiny_model: SED, tmp_path: Path) -> None:
    save(tiny_model, tmp_path / "half.safetensors", half=True)
    assert load_file(tmp_path / "half.safetensors")["decoder.conv1.weight"].dtype == torch.float16
    assert SED.from_checkpoint(tmp_path / "half.safetensors").decoder.conv1.weight.dtype == torch.float32


def test_repository_checkpoint_is_small(tiny_checkpoint: Path) -> None:
    assert tiny_checkpoint.stat().st_size <= 24_000_000


def refused(path: Path, preset: str | None = None) -> str:
    """The one-line message with which `path` is refused."""
    with pytest.raises(InputError) as caught:
        SED.from_checkpoint(path, preset)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_missing_file(tmp_path: Path) -> None:
    assert "no such file" in refused(tmp_path / "none.pth")


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_empty_file(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"empty{suffix}"
    path.touch()
    assert str(path) in refused(path)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_truncated_file(tiny_model: SED, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"cut{suffix}"
    if suffix == ".pth":
        torch.save({"model": published_tiny(tiny_model)}, path)
    else:
        save(tiny_model, path)
    path.write_bytes(path.read_bytes()[:100_000])
    assert "cut short" in refused(path)


def test_text_file(tmp_path: Path) -> None:
    path = tmp_path / "notes.pth"
    path.write_text("not a checkpoint\n")
    assert "cannot be read as a PyTorch checkpoint" in refused(path)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("new_format", [True, False])
@pytest.mark.filterwarnings("error")
def test_damaged_file(seed: int, new_format: bool, tmp_path: Path) -> None:
    source = random.Random(seed)
    path = tmp_path / "damaged.pth"
    content = {"model": {"layer.weight": torch.zeros(3), "layer.bias": torch.zeros(2, 2)}}
    torch.save(content, path, _use_new_zipfile_serialization=new_format)
    whole = path.read_bytes()
    for _ in range(60):
        damaged = bytearray(whole)
        for _ in range(source.choice((1, 8))):
            damaged[source.randrange(len(damaged))] ^= 1 << source.randrange(8)
        path.write_bytes(damaged)
        assert str(path) in refused(path)
        path.write_bytes(source.choice((b"\x80\x02", b"PK\x03\x04", b"")) + source.randbytes(200))
        assert str(path) in refused(path)


def test_code_in_a_pickle_is_not_run(tmp_path: Path) -> None:
    class Payload:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (Path.touch, (tmp_path / "ran",))  # type: ignore[return-value]

    torch.save({"model": Payload()}, tmp_path / "evil.pth")
    refused(tmp_path / "evil.pth")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "content", [{"state_dict": {}}, [1, 2], {"model": {"a": 3}}, {"model": {1: torch.zeros(1)}}]
)
def test_foreign_structure(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "foreign.pth")
    assert 'no weights under "model"' in refused(tmp_path / "foreign.pth")


def test_foreign_model(tmp_path: Path) -> None:
    torch.save({"model": {"layer.weight": torch.zeros(3)}}, tmp_path / "foreign.pth")
    assert "expected a published SED checkpoint" in refused(tmp_path / "foreign.pth")


def test_unknown_width(tiny_model: SED, tmp_path: Path) -> None:
    tensors = published_tiny(tiny_model)
    tensors[published_name("clip.visual.trunk.stem.0.weight")] = torch.zeros(77, 3, 4, 4)
    torch.save({"model": tensors}, tmp_path / "odd.pth")
    assert "77 channels" in refused(tmp_path / "odd.pth")


def test_keys_that_do_not_fit_are_counted_and_named(tiny_model: SED, tmp_path: Path) -> None:
    tensors = published_tiny(tiny_model)
    heads = [f"sed_seg_head.{name}" for name in "abcdef"]
    tensors.update({name: torch.zeros(1) for name in heads})
    del tensors[published_name("decoder.head0.bias")]
    tensors[published_name("decoder.head1.bias")] = torch.zeros(2)
    torch.save({"model": tensors}, tmp_path / "misfit.pth")
    message = refused(tmp_path / "misfit.pth")
    assert "1 missing (sem_seg_head.predictor.transformer.head0.bias)" in message
    assert "6 surplus (sed_seg_head.a, " in message and "…" in message
    assert "1 misshapen (sem_seg_head.predictor.transformer.head1.bias (2,) for (1,))" in message


def test_wrong_preset_is_named(tiny_checkpoint: Path) -> None:
    assert "does not fit preset sed-b" in refused(tiny_checkpoint, "sed-b")


def test_unknown_preset_lists_the_valid_ones(tiny_checkpoint: Path) -> None:
    assert "sed-b, sed-l, sed-tiny" in refused(tiny_checkpoint, "sed-xl")


def test_safetensors_without_a_preset(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(1)}, tmp_path / "plain.safetensors")
    assert "names no preset" in refused(tmp_path / "plain.safetensors")


def test_safetensors_of_an_unknown_preset(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(1)}, tmp_path / "odd.safetensors", metadata={"preset": "sed-huge"})
    message = refused(tmp_path / "odd.safetensors")
    assert "odd.safetensors: names the preset 'sed-huge'" in message
    assert "sed-b, sed-l, sed-tiny" in message


def test_empty_safetensors_misses_our_own_keys(tmp_path: Path) -> None:
    save_file({}, tmp_path / "none.safetensors", metadata={"preset": "sed-tiny"})
    assert "missing (clip." in refused(tmp_path / "none.safetensors")


def test_published_key_lists_are_whole() -> None:
    assert len(json.loads((DATA / "checkpoint_base.json").read_text())) == 608
