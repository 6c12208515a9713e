"""The bundle contract: manifest, stages, presence and content of files."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sed_trt.bundle import COMPUTE_DTYPES, TOKENIZER_FILE, Bundle, Manifest, check_stages, write_manifest
from sed_trt.cli.main import main
from sed_trt.engines.backends import BACKENDS, open_engines
from sed_trt.errors import InputError
from sed_trt.stages import STAGE_NAMES
from sed_trt.tests.fakes.manifest import fake_manifest, table_manifest
from sed_trt.tests.fakes.small_bundle import small_bundle


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A bundle whose files hold a few bytes each."""
    return small_bundle(tmp_path / "bundle").path


def change(folder: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    """Rewrite the manifest after `edit` changed its content in place."""
    path = folder / "manifest.json"
    data = json.loads(path.read_text())
    edit(data)
    path.write_text(json.dumps(data))


def test_manifest_round_trip(folder: Path) -> None:
    manifest = Bundle.open(folder).manifest
    assert Manifest.from_json(manifest.to_json()) == manifest
    assert manifest.stages["scout"].inputs[1].shape == ("T", 2, 8)
    assert next(iter(json.loads(manifest.to_json()))) == "format"


def test_nothing_but_the_manifest_is_left_by_writing(folder: Path) -> None:
    assert {path.name for path in folder.iterdir()} == {
        "manifest.json", TOKENIZER_FILE, *(f"{stage}.onnx" for stage in STAGE_NAMES)
    }  # fmt: skip


@pytest.mark.parametrize("version", [0, 1, 3, "2", None])
def test_other_format_version(folder: Path, version: object) -> None:
    change(folder, lambda data: data.update(format=version))
    with pytest.raises(InputError, match=r"reads format 2; export the checkpoint again"):
        Bundle.open(folder)


def set_shape(stage: str, side: str, index: int, shape: list[Any]) -> Callable[[dict[str, Any]], object]:
    """Replaces the shape of an input or output of a stage."""
    return lambda data: data["stages"][stage][side][index].update(shape=shape)


EDITS: dict[str, Callable[[dict[str, Any]], object]] = {
    "the field 'embed_dim' is missing": lambda data: data.pop("embed_dim"),
    "the field 'image_size' is '64', expected int": lambda data: data.update(image_size="64"),
    "the field 'image_size' is 0, expected int >= 1": lambda data: data.update(image_size=0),
    "'vote_ranks' is 0, expected 8": lambda data: data.update(vote_ranks=0),
    "'vote_ranks' is 4, expected 8": lambda data: data.update(vote_ranks=4),
    "'context_length' is True, expected int": lambda data: data.update(context_length=True),
    "'templates' is [], expected at least one sentence": lambda data: data.update(templates=[]),
    "'templates[1]' is 'the', expected a sentence with one {}": lambda data: data.update(
        templates=["a {}", "the"]
    ),
    "'precision' is 'fp8', expected one of fp32, fp16, bf16, int8": lambda data: data.update(precision="fp8"),
    "'checkpoint.sha256' is missing": lambda data: data["checkpoint"].pop("sha256"),
    "the stage 'label' is missing": lambda data: data["stages"].pop("label"),
    "the stage 'more' is unknown, expected text, pixels": lambda data: data["stages"].update(
        more=data["stages"]["text"]
    ),
    "'stages.scout.inputs' is missing": lambda data: data["stages"]["scout"].pop("inputs"),
    "'stages.text.file' is 7, expected str": lambda data: data["stages"]["text"].update(file=7),
    "'stages.scout.outputs[0].shape[0]' is 1.5, expected int | str": set_shape("scout", "outputs", 0, [1.5]),
    "'stages.scout.inputs[1].shape[1]' is True, expected int | str": set_shape(
        "scout", "inputs", 1, ["T", True, 8]
    ),
    "the file 'tokenizer.json' is missing": lambda data: data["files"].pop(TOKENIZER_FILE),
    "the file 'up.onnx' is missing": lambda data: data["stages"]["text"].update(file="up.onnx"),
    "'files.scout.onnx.sha256' is missing": lambda data: data["files"]["scout.onnx"].pop("sha256"),
    "the file name '../up' is not a plain name": lambda data: data["files"].update(
        {"../up": {"sha256": "0" * 64, "bytes": 0}}
    ),
    "'libraries.torch' is 2, expected str": lambda data: data["libraries"].update(torch=2),
    # Fields that agree with their types but not with each other or with the table of stages.
    "'stages.scout.inputs[1].shape[1]' is 2, expected 1 (prompt templates), to agree with the field "
    "'templates'": lambda data: data["templates"].pop(),
    "'stages.text.outputs[0].shape[1]' is 8, expected 9 (width of the CLIP embedding), to agree with the "
    "field 'embed_dim'": lambda data: data.update(embed_dim=9),
    "'stages.text.inputs[0].shape[1]' is 7, expected 77 (tokens of a sentence)": lambda data: data.update(
        context_length=77
    ),
    "'stages.pixels.outputs[0].shape[2]' is 64, expected 96": lambda data: data.update(image_size=96),
    "'stages.image.inputs[0].shape[1]' is 4, expected 3;": set_shape("image", "inputs", 0, ["B", 4, 64, 64]),
    "'stages.image.inputs[0].shape' is ['B', 3, 64], expected 4 axes": set_shape(
        "image", "inputs", 0, ["B", 3, 64]
    ),
    "'stages.scout.inputs[1].shape[0]' is 5, expected the name of a dynamic axis, for example 'T'": set_shape(
        "scout", "inputs", 1, [5, 2, 8]
    ),
    "'stages.scout.inputs[1].shape[2]' is 'C', expected a size": set_shape(
        "scout", "inputs", 1, ["T", 2, "C"]
    ),
    "'stages.gather2.inputs[0].shape[1]' is 5, expected 4 (channels of the features that decoder stage 1 "
    "gives), to agree with the field 'stages.decode1.outputs[0].shape[1]'": set_shape(
        "gather2", "inputs", 0, ["K1", 5, 4, 4]
    ),
    "'stages.scout.inputs[0].dtype' is 'float16', expected float32": lambda data: data["stages"]["scout"][
        "inputs"
    ][0].update(dtype="float16"),
    "'stages.scout.inputs' are ['embed', 'words'], expected ['embed', 'text']": lambda data: data["stages"][
        "scout"
    ]["inputs"][1].update(name="words"),
    "'stages.label.outputs' are ['labels'], expected ['labels', 'scores']": lambda data: data["stages"][
        "label"
    ]["outputs"].pop(),
}


@pytest.mark.parametrize("message", EDITS)
def test_wrong_manifest_names_the_field(folder: Path, message: str) -> None:
    change(folder, EDITS[message])
    with pytest.raises(InputError) as raised:
        Bundle.open(folder)
    line = str(raised.value)
    assert message in line
    assert line.startswith(f"{folder / 'manifest.json'}: ")
    assert line.endswith("; export the checkpoint again with `sed-trt export CHECKPOINT -o BUNDLE`")
    assert "\n" not in line


@pytest.mark.parametrize("precision", COMPUTE_DTYPES)
def test_table_manifests_fit_the_table(precision: str) -> None:
    manifest = table_manifest(128, 6, 9, 2, precision)
    check_stages(manifest)
    check_stages(fake_manifest())
    # The precision decides the dtype of what is between the stages.
    other = "fp16" if COMPUTE_DTYPES[precision] != "float16" else "bf16"
    with pytest.raises(Exception, match=r"stages\.image\.outputs\[0\]\.dtype"):
        check_stages(replace(manifest, precision=other))


def test_names_of_dynamic_axes_are_free(folder: Path) -> None:
    change(folder, set_shape("label", "inputs", 3, ["W"]))
    assert Bundle.open(folder).manifest.stages["label"].inputs[3].shape == ("W",)


@pytest.mark.parametrize("command", ["segment", "build", "inspect", "doctor", "evaluate"])
def test_every_command_refuses_a_wrong_manifest(
    command: str, tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = shutil.copytree(tiny_bundle, tmp_path / "bundle")
    change(folder, lambda data: data["templates"].pop())
    more = ["photo.png", "--categories", "sky"] if command == "segment" else []
    assert main([command, str(folder), *more]) == 2
    captured = capsys.readouterr().err
    assert captured.startswith(
        f"sed-trt: error: {folder / 'manifest.json'}: the field 'stages.scout.inputs[1]"
    )
    assert captured.count("\n") == 1


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b"[" * 100_000, b'{"format": NaN}'])
def test_foreign_manifest(folder: Path, content: bytes) -> None:
    (folder / "manifest.json").write_bytes(content)
    with pytest.raises(InputError, match=r"manifest\.json: .*export the checkpoint again"):
        Bundle.open(folder)


def test_no_bundle(folder: Path, tmp_path: Path) -> None:
    for name in ("absent", "null\0byte", "x" * 300):
        with pytest.raises(InputError, match="no such bundle folder"):
            Bundle.open(tmp_path / name)
    with pytest.raises(InputError, match="is a file"):
        Bundle.open(folder / "scout.onnx")
    (folder / "manifest.json").unlink()
    with pytest.raises(InputError, match=r"holds no manifest\.json"):
        Bundle.open(folder)


def test_missing_file_is_found_at_opening(folder: Path) -> None:
    (folder / "decode2.onnx").unlink()
    with pytest.raises(InputError, match=r"decode2\.onnx: is listed in the manifest but missing"):
        Bundle.open(folder)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no FIFOs")
@pytest.mark.parametrize("name", ["manifest.json", "scout.onnx", TOKENIZER_FILE])
def test_fifos_are_refused_and_not_opened(name: str, folder: Path) -> None:
    (folder / name).unlink()
    os.mkfifo(folder / name)
    with pytest.raises(InputError, match=f"{name}: .*no regular file"):
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
        open_engines(Bundle.open(folder), "tensorflow")


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
