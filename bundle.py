"""The bundle: a folder with one ONNX graph per stage, the tokenizer and the manifest that describes them.

Export writes it, engines and runtime read it; this file is the contract between them.
"""

import hashlib
import json
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from .errors import InputError
from .files import exists, is_file, is_folder, replacing

FORMAT = 1
MANIFEST_FILE = "manifest.json"
TOKENIZER_FILE = "tokenizer.json"
# Rows of a vote table: the ranks that stages count.
VOTE_RANKS = 8
STAGES = ("text", "pixels", "image", "scout", "decode1", "decode2", "decode3", "label")

_REMEDY = "export the checkpoint again with `sed-trt export CHECKPOINT -o BUNDLE`"

Kind = TypeVar("Kind")


@dataclass(frozen=True)
class TensorSpec:
    """One input or output of a stage: numpy dtype name, and sizes where a string names a dynamic axis."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]


@dataclass(frozen=True)
class Stage:
    """One graph: its file inside the bundle and its inputs and outputs in order."""

    file: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


@dataclass(frozen=True)
class FileRecord:
    """Content of a bundle file: lower-case hexadecimal sha256 and size in bytes."""

    sha256: str
    bytes: int


@dataclass(frozen=True)
class Manifest:
    """What manifest.json says.

    Attributes:
        sed_trt: version of sed-trt that exported the bundle.
        preset: name of the model preset, for example "sed-b".
        precision: "fp32", "fp16", "bf16" or "int8".
        image_size: side S of the network's square input in pixels.
        embed_dim: width C of the CLIP embedding.
        context_length: tokens per sentence.
        templates: the P prompt templates, each with one "{}" for the category.
        vote_ranks: rows of a vote table; always `VOTE_RANKS`.
        stages: stage name to graph.
        files: file name to content, for every file but the manifest.
        checkpoint: "file" and "sha256" of the checkpoint that was exported.
        libraries: library name to the version used by the export.
    """

    sed_trt: str
    preset: str
    precision: str
    image_size: int
    embed_dim: int
    context_length: int
    templates: tuple[str, ...]
    vote_ranks: int
    stages: Mapping[str, Stage]
    files: Mapping[str, FileRecord]
    checkpoint: Mapping[str, str]
    libraries: Mapping[str, str]
    format: int = FORMAT

    def to_json(self) -> str:
        """The text of manifest.json."""
        return json.dumps({"format": self.format} | asdict(self), indent=1, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str, source: Path | str = MANIFEST_FILE) -> "Manifest":
        """Read the text of manifest.json; `source` names it in errors.

        Raises:
            InputError: not JSON, of another format version, or a field is missing or of the wrong type.
        """
        try:
            data = json.loads(text)
        except ValueError as error:
            raise InputError(f"{source}: is not JSON ({error}); {_REMEDY}") from error
        if not isinstance(data, dict):
            raise InputError(f"{source}: holds a {type(data).__name__}, expected an object; {_REMEDY}")
        version = data.get("format")
        if version != FORMAT:
            raise InputError(
                f"{source}: bundle format {version!r} is unknown, "
                f"this version reads format {FORMAT}; {_REMEDY}"
            )
        try:
            return _manifest(data)
        except _MalformedError as error:
            raise InputError(f"{source}: {error}; {_REMEDY}") from error


@dataclass(frozen=True)
class Bundle:
    """An opened bundle folder: every file its manifest lists was there when it was opened."""

    path: Path
    manifest: Manifest

    @classmethod
    def open(cls, path: str | Path) -> "Bundle":
        """Read the manifest of the folder `path` and check that every file is present.

        Contents are not read here; `verified` checks them, file by file.

        Raises:
            InputError: no such folder, no manifest, an unreadable manifest, or a listed file is missing.
        """
        path = Path(path)
        if not exists(path):
            raise InputError(
                f"{path}: no such bundle folder; make one with `sed-trt export CHECKPOINT -o {path}`"
            )
        if not is_folder(path):
            raise InputError(f"{path}: is a file, expected a bundle folder; give the folder that holds it")
        source = path / MANIFEST_FILE
        try:
            text = source.read_text(encoding="utf-8")
        except FileNotFoundError as error:
            raise InputError(f"{path}: holds no {MANIFEST_FILE}, so it is not a bundle; {_REMEDY}") from error
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{source}: cannot be read ({error}); {_REMEDY}") from error
        manifest = Manifest.from_json(text, source)
        for name in manifest.files:
            if not is_file(path / name):
                raise InputError(f"{path / name}: is listed in the manifest but missing; {_REMEDY}")
        return cls(path, manifest)

    def verified(self, file: str) -> Path:
        """Path of a bundle file whose content equals the manifest's sha256, checked once per process.

        Raises:
            InputError: the file is missing, truncated or altered.
        """
        path = self.path / file
        record = self.manifest.files[file]
        try:
            status = path.stat()
            seen = (str(path.resolve()), record.sha256, status.st_size, status.st_mtime_ns)
            with _verified_lock:
                if seen in _verified:
                    return path
                found = file_record(path)
                if found == record:
                    _verified.add(seen)
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror}); {_REMEDY}") from error
        if found != record:
            raise InputError(
                f"{path}: was altered after the export ({found.bytes} bytes, sha256 {found.sha256[:12]}…, "
                f"but the manifest says {record.bytes} bytes, {record.sha256[:12]}…); {_REMEDY}"
            )
        return path


def check_runs_on_gpu(bundle: Bundle, backend: str) -> None:
    """Refuse a bundle whose 8-bit products only ONNX Runtime's CPU provider computes.

    Raises:
        InputError: it is one.
    """
    if bundle.manifest.precision == "int8":
        raise InputError(
            f"backend {backend}: {bundle.path} is an 8-bit bundle, which is for the CPU; "
            "export with --precision fp16, or use the backend onnxruntime"
        )


_verified: set[tuple[str, str, int, int]] = set()
_verified_lock = threading.Lock()


def file_record(path: Path) -> FileRecord:
    """Hash and size of a file, for `Manifest.files`."""
    with path.open("rb") as file:
        return FileRecord(hashlib.file_digest(file, "sha256").hexdigest(), path.stat().st_size)


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write manifest.json into `folder`, whole or not at all.

    Raises:
        InputError: the folder cannot be written.
    """
    with replacing(folder / MANIFEST_FILE) as temporary:
        temporary.write_text(manifest.to_json(), encoding="utf-8")


class _MalformedError(Exception):
    """A manifest field is missing or of the wrong type; the message says which."""


def _manifest(data: dict[str, Any]) -> Manifest:
    stages = {name: _stage(name, value) for name, value in _field(data, "stages", dict).items()}
    files = {name: _file(name, value) for name, value in _field(data, "files", dict).items()}
    for name in STAGES:
        if name not in stages:
            raise _MalformedError(f"the stage {name!r} is missing")
    for name in (*(stage.file for stage in stages.values()), TOKENIZER_FILE):
        if name not in files:
            raise _MalformedError(f"the file {name!r} is missing from 'files'")
    return Manifest(
        sed_trt=_field(data, "sed_trt", str),
        preset=_field(data, "preset", str),
        precision=_field(data, "precision", str),
        image_size=_positive(data, "image_size"),
        embed_dim=_positive(data, "embed_dim"),
        context_length=_positive(data, "context_length"),
        templates=_templates(data),
        vote_ranks=_vote_ranks(data),
        stages=stages,
        files=files,
        checkpoint=_strings(data, "checkpoint"),
        libraries=_strings(data, "libraries"),
    )


def _field(data: Any, key: str, kind: type[Kind], where: str = "") -> Kind:
    if not isinstance(data, dict) or key not in data:
        raise _MalformedError(f"the field '{where}{key}' is missing")
    value = data[key]
    # bool is an int to Python, but true is no size.
    if not isinstance(value, kind) or isinstance(value, bool):
        raise _MalformedError(f"the field '{where}{key}' is {value!r:.60}, expected {kind.__name__}")
    return value


def _positive(data: dict[str, Any], key: str) -> int:
    value = _field(data, key, int)
    if value < 1:
        raise _MalformedError(f"the field '{key}' is {value}, expected at least 1")
    return value


def _vote_ranks(data: dict[str, Any]) -> int:
    value = _field(data, "vote_ranks", int)
    if value != VOTE_RANKS:
        raise _MalformedError(f"the field 'vote_ranks' is {value}, expected {VOTE_RANKS}")
    return value


def _strings(data: dict[str, Any], key: str) -> dict[str, str]:
    values = _field(data, key, dict)
    return {name: _field(values, name, str, f"{key}.") for name in values}


def _templates(data: dict[str, Any]) -> tuple[str, ...]:
    templates = _field(data, "templates", list)
    if not templates or not all(isinstance(value, str) and value.count("{}") == 1 for value in templates):
        raise _MalformedError("the field 'templates' must list sentences that each hold one {}")
    return tuple(templates)


def _file(name: str, data: Any) -> FileRecord:
    # A manifest from elsewhere must not lead outside its own folder.
    if Path(name).name != name:
        raise _MalformedError(f"the file name {name!r} is not a plain name")
    return FileRecord(
        _field(data, "sha256", str, f"files.{name}."), _field(data, "bytes", int, f"files.{name}.")
    )


def _stage(name: str, data: Any) -> Stage:
    where = f"stages.{name}."
    inputs, outputs = (
        tuple(_tensor(value, f"{where}{side}.") for value in _field(data, side, list, where))
        for side in ("inputs", "outputs")
    )
    return Stage(_field(data, "file", str, where), inputs, outputs)


def _tensor(data: Any, where: str) -> TensorSpec:
    shape = _field(data, "shape", list, where)
    if not all(isinstance(size, int | str) for size in shape):
        raise _MalformedError(f"the field '{where}shape' is {shape!r:.60}, expected sizes and axis names")
    return TensorSpec(_field(data, "name", str, where), _field(data, "dtype", str, where), tuple(shape))
