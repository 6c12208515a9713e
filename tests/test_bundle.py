"""The bundle contract: manifest, presence and content of files."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sed_trt.bundle import (
    STAGES,
    TOKENIZER_FILE,
    Bundle,
    Manifest,
    Stage,
    TensorSpec,
    file_record,
    write_manifest,
)
from sed_trt.engines.backends import BACKENDS, open_engines
from sed_trt.errors import InputError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A bundle whose files hold a few bytes each."""
    path = tmp_path / "bundle"
    path.mkdir()
    names = [*(f"{stage}.onnx" for stage in STAGES), TOKENIZER_FILE]
    for name in names:
        (path / name).write_text(name)
    tensor = TensorSpec("embed", "float32", ("B", 64, 8, 8))
    manifest = Manifest(
        sed_trt="0.1.0",
        preset="sed-tiny",
        precision="fp32",
        image_size=256,
        embed_dim=64,
        context_length=77,
        templates=("a photo of a {}.", "the {}"),
        vote_ranks=8,
        stages={stage: Stage(f"{stage}.onnx", (tensor,), (tensor,)) for stage in STAGES},
        files={name: file_record(path / name) for name in names},
        checkpoint={"file": "sed-tiny.safetensors", "sha256": "00"},
        libraries={"torch": "2.9"},
    )
    write_manifest(path, manifest)
    return path


def change(folder: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    """Rewrite the manifest after `edit` changed its content in place."""
    path = folder / "manifest.json"
    data = json.loads(path.read_text())
    edit(data)
    path.write_text(json.dumps(data))


def test_manifest_round_trip(folder: Path) -> None:
    manifest = Bundle.open(folder).manifest
    assert Manifest.from_json(manifest.to_json()) == manifest
    assert manifest.stages["scout"].inputs[0].shape == ("B", 64, 8, 8)
    assert next(iter(json.loads(manifest.to_json()))) == "format"


def test_nothing_but_the_manifest_is_left_by_writing(folder: Path) -> None:
    assert {path.name for path in folder.iterdir()} == {
        "manifest.json", TOKENIZER_FILE, *(f"{stage}.onnx" for stage in STAGES)
    }  # fmt: skip


@pytest.mark.parametrize("version", [0, 2, "1", None])
def test_other_format_version(folder: Path, version: object) -> None:
    change(folder, lambda data: data.update(format=version))
    with pytest.raises(InputError, match=r"reads format 1; export the checkpoint again"):
        Bundle.open(folder)


EDITS: dict[str, Callable[[dict[str, Any]], object]] = {
    "embed_dim": lambda data: data.pop("embed_dim"),
    "image_size": lambda data: data.update(image_size="256"),
    "vote_ranks": lambda data: data.update(vote_ranks=0),
    "'vote_ranks' is 4, expected 8": lambda data: data.update(vote_ranks=4),
    "context_length": lambda data: data.update(context_length=True),
    "templates": lambda data: data.update(templates=["no place"]),
    "label": lambda data: data["stages"].pop("label"),
    "stages.scout.inputs": lambda data: data["stages"]["scout"].pop("inputs"),
    "stages.scout.outputs.shape": lambda data: data["stages"]["scout"]["outputs"][0].update(shape=[1.5]),
    "tokenizer.json": lambda data: data["files"].pop(TOKENIZER_FILE),
    "files.scout.onnx.sha256": lambda data: data["files"]["scout.onnx"].pop("sha256"),
    "not a plain name": lambda data: data["files"].update({"../up": {"sha256": "", "bytes": 0}}),
    "libraries.torch": lambda data: data["libraries"].update(torch=2),
}


@pytest.mark.parametrize("field", EDITS)
def test_malformed_manifest_names_the_field(folder: Path, field: str) -> None:
    change(folder, EDITS[field])
    with pytest.raises(InputError) as raised:
        Bundle.open(folder)
    assert field in str(raised.value)
    assert str(folder / "manifest.json") in str(raised.value)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe"])
def test_foreign_manifest(folder: Path, content: bytes) -> None:
    (folder / "manifest.json").write_bytes(content)
    with pytest.raises(InputError, match=r"manifest\.json: .*export the checkpoint again"):
        Bundle.open(folder)


def test_no_bundle(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such bundle folder"):
        Bundle.open(tmp_path / "absent")
    with pytest.raises(InputError, match="is a file"):
        Bundle.open(folder / "scout.onnx")
    (folder / "manifest.json").unlink()
    with pytest.raises(InputError, match=r"holds no manifest\.json"):
        Bundle.open(folder)


def test_missing_file_is_found_at_opening(folder: Path) -> None:
    (folder / "decode2.onnx").unlink()
    with pytest.raises(InputError, match=r"decode2\.onnx: is listed in the manifest but missing"):
        Bundle.open(folder)


@pytest.mark.parametrize("content", ["", "scout.onn", "scout.onnz"])
def test_altered_file_is_found_before_use(folder: Path, content: str) -> None:
    bundle = Bundle.open(folder)
    assert bundle.verified("scout.onnx") == folder / "scout.onnx"
    (folder / "scout.onnx").write_text(content)
    with pytest.raises(InputError, match=r"scout\.onnx: was altered .*export the checkpoint again"):
        bundle.verified("scout.onnx")


def test_content_is_read_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sed_trt import bundle as module

    Bundle.open(folder).verified("label.onnx")
    monkeypatch.setattr(module, "file_record", lambda path: pytest.fail("read again"))
    Bundle.open(folder).verified("label.onnx")


def test_file_that_vanishes_after_opening(folder: Path) -> None:
    bundle = Bundle.open(folder)
    (folder / "image.onnx").unlink()
    with pytest.raises(InputError, match=r"image\.onnx: cannot be read"):
        bundle.verified("image.onnx")


def test_unwritable_folder(folder: Path) -> None:
    manifest = Bundle.open(folder).manifest
    with pytest.raises(InputError, match="cannot be written"):
        write_manifest(folder / "absent", manifest)


def test_graph_that_onnxruntime_cannot_load(folder: Path) -> None:
    engines = open_engines(Bundle.open(folder), "onnxruntime")
    with pytest.raises(InputError, match=r"scout\.onnx: ONNX Runtime .* cannot load it"):
        engines["scout"]


def test_unknown_backend_lists_the_valid_ones(folder: Path) -> None:
    with pytest.raises(InputError, match=", ".join(BACKENDS)):
        open_engines(Bundle.open(folder), "openvino")


def test_too_few_threads(folder: Path) -> None:
    with pytest.raises(InputError, match="threads: 0"):
        open_engines(Bundle.open(folder), threads=0)


def test_cuda_that_is_not_there(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sed_trt.engines.backends.cuda_offered", lambda: False)
    with pytest.raises(InputError, match="has no CUDA provider"):
        open_engines(Bundle.open(folder), "onnxruntime-cuda")
    engines = open_engines(Bundle.open(folder))
    assert engines.backend == "onnxruntime"
    assert "no CUDA provider" in engines.reason
