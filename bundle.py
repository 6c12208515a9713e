"""The bundle: a folder with one ONNX graph per stage, the tokenizer and the manifest that describes them.

Export writes it; engines and runtime read it. This file and the table of stages are their contract.
"""

import hashlib
import json
import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, TypedDict

import msgspec

from .errors import InputError
from .files import exists, is_file, is_folder, read_file, replacing
from .records import FieldPath, RecordError, decode_record, field_name, wrong_field
from .stages import ALL_STAGES, AXES, BY_NAME, COMPUTE, SIZES, STAGE_NAMES, VOTE_RANKS, TensorDefinition

# Precision of a bundle to the dtype of the tensors that follow it; 8-bit products are inside the graphs.
COMPUTE_DTYPES = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16", "int8": "float32"}
# The precisions whose tensors are half.
HALF_PRECISIONS = tuple(name for name, dtype in COMPUTE_DTYPES.items() if dtype != "float32")

# Rises with changes of the stages that make earlier bundles unusable.
FORMAT = 2
MANIFEST_FILE = "manifest.json"
TOKENIZER_FILE = "tokenizer.json"
# Where `sed-trt build` puts engines; not part of the export.
ENGINES_FOLDER = "engines"
REMEDY = "export the checkpoint again with `sed-trt export CHECKPOINT -o BUNDLE`"

Positive = Annotated[int, msgspec.Meta(ge=1)]
Sha256 = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]


@dataclass(frozen=True)
class TensorSpec:
    """One input or output of a stage: numpy dtype name, and sizes where a string names a dynamic axis."""

    name: str
    dtype: str
    shape: tuple[Positive | str, ...]


@dataclass(frozen=True)
class Stage:
    """One graph: its file inside the bundle and its inputs and outputs in order."""

    file: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


@dataclass(frozen=True)
class FileRecord:
    """Content of a bundle file: sha256 in lower-case hexadecimal digits, and size in bytes."""

    sha256: Sha256
    bytes: int


class CheckpointRecord(TypedDict):
    """Name and sha256 of the checkpoint file that was exported."""

    file: str
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """The content of manifest.json.

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
        checkpoint: the file that was exported.
        libraries: library name to the version used by the export.
    """

    sed_trt: str
    preset: str
    precision: str
    image_size: Positive
    embed_dim: Positive
    context_length: Positive
    templates: tuple[str, ...]
    vote_ranks: int
    stages: Mapping[str, Stage]
    files: Mapping[str, FileRecord]
    checkpoint: CheckpointRecord
    libraries: Mapping[str, str]
    format: int = FORMAT

    def to_json(self) -> str:
        """The text of manifest.json."""
        return json.dumps({"format": self.format} | asdict(self), indent=1, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, content: bytes | str, source: Path | str = MANIFEST_FILE) -> "Manifest":
        """Read the content of manifest.json; `source` names it in errors.

        Raises:
            InputError: not JSON, of another format version, a field is missing or wrong, or the stages are
                not those of the table.
        """
        try:
            manifest = decode_record(content, cls, FORMAT)
            _check_fields(manifest)
            check_stages(manifest)
        except RecordError as error:
            raise InputError(f"{source}: {error}; {REMEDY}") from error
        return manifest


def _check_fields(manifest: Manifest) -> None:
    """Check what msgspec cannot, apart from the stages' inputs and outputs; raises RecordError."""
    if manifest.vote_ranks != VOTE_RANKS:
        raise wrong_field(("vote_ranks",), manifest.vote_ranks, str(VOTE_RANKS))
    if not manifest.templates:
        raise wrong_field(("templates",), [], "at least one sentence")
    for index, template in enumerate(manifest.templates):
        if template.count("{}") != 1:
            raise wrong_field(("templates", index), template, "a sentence with one {}")
    for name in manifest.files:
        # A manifest from elsewhere must not lead outside its own folder.
        if Path(name).name != name or not name.isprintable():
            raise RecordError(f"the file name {name!r} is not a plain name")
    for name in (*(stage.file for stage in manifest.stages.values()), TOKENIZER_FILE):
        if name not in manifest.files:
            raise RecordError(f"the file {name!r} is missing from the field 'files'")


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
            InputError: no such folder, no manifest, a manifest that cannot be read or is wrong, or a listed
                file is missing.
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
            content = read_file(source)
        except FileNotFoundError as error:
            raise InputError(f"{path}: holds no {MANIFEST_FILE}, so it is not a bundle; {REMEDY}") from error
        except OSError as error:
            raise InputError(f"{source}: cannot be read ({error.strerror}); {REMEDY}") from error
        manifest = Manifest.from_json(content, source)
        for name in manifest.files:
            if not is_file(path / name):
                raise InputError(
                    f"{path / name}: is listed in the manifest but missing or no regular file; {REMEDY}"
                )
        return cls(path, manifest)

    def verified(self, file: str) -> Path:
        """Path of a bundle file whose content equals the manifest's sha256, checked once per process.

        Raises:
            InputError: the file is missing, truncated or altered.
        """
        path = self.path / file
        expected = self.manifest.files[file]
        try:
            status = path.stat()
            seen = (str(path.resolve()), expected.sha256, status.st_size, status.st_mtime_ns)
            with _verified_lock:
                if seen in _verified:
                    return path
                actual = file_record(path)
                if actual == expected:
                    _verified.add(seen)
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror}); {REMEDY}") from error
        if actual != expected:
            raise InputError(
                f"{path}: was altered after the export ({actual.bytes} bytes, sha256 {actual.sha256[:12]}…, "
                f"but the manifest says {expected.bytes} bytes, {expected.sha256[:12]}…); {REMEDY}"
            )
        return path


# Real path, sha256, size and modification time of each file whose content was checked.
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


def check_stages(manifest: Manifest) -> None:
    """Compare the stages of a manifest with the table of stages.

    All of `STAGES` must be there, those of `CPU_STAGES` and `GPU_STAGES` may be. Every stage must have the
    inputs and outputs of its definition, in order and with their dtypes. Dynamic axes must be dynamic,
    whatever their names; a size that has a symbol in the table must be the same wherever the symbol stands,
    and agree with the manifest's other fields.

    Raises:
        RecordError: they differ; names the field, the value that is there and what is expected.
    """
    if manifest.precision not in COMPUTE_DTYPES:
        raise wrong_field(("precision",), manifest.precision, f"one of {', '.join(COMPUTE_DTYPES)}")
    for name in STAGE_NAMES:
        if name not in manifest.stages:
            raise RecordError(f"the stage {name!r} is missing")
    for name in manifest.stages:
        if name not in BY_NAME:
            raise RecordError(f"the stage {name!r} is unknown, expected {', '.join(BY_NAME)}")
    compute = COMPUTE_DTYPES[manifest.precision]
    sizes = _stated_sizes(manifest)
    for definition in ALL_STAGES:
        if definition.name not in manifest.stages:
            continue
        stage = manifest.stages[definition.name]
        path = ("stages", definition.name)
        _check_tensors((*path, "inputs"), stage.inputs, definition.inputs, compute, sizes)
        _check_tensors((*path, "outputs"), stage.outputs, definition.outputs, compute, sizes)


def _stated_sizes(manifest: Manifest) -> dict[str, tuple[int, str]]:
    """Symbol of `SIZES` to size, for those that other fields state, with the name of that field."""
    sizes = {
        "L": (manifest.context_length, "context_length"),
        "C": (manifest.embed_dim, "embed_dim"),
        "P": (len(manifest.templates), "templates"),
        "S": (manifest.image_size, "image_size"),
    }
    for taps in (81, 27, 9):
        sizes[f"{taps}C"] = (taps * manifest.embed_dim, "embed_dim")
    for symbol, scale in (("h", 1), ("2h", 2), ("4h", 4), ("8h", 8)):
        sizes[symbol] = (manifest.image_size // 32 * scale, "image_size")
    return sizes


def _check_tensors(
    path: FieldPath,
    tensors: Sequence[TensorSpec],
    definitions: Sequence[TensorDefinition],
    compute: str,
    sizes: dict[str, tuple[int, str]],
) -> None:
    names = [tensor.name for tensor in tensors]
    expected = [definition.name for definition in definitions]
    if names != expected:
        raise RecordError(
            f"the names in the field '{field_name(path)}' are {names!r:.60}, expected {expected!r}"
        )
    for index, (tensor, definition) in enumerate(zip(tensors, definitions, strict=True)):
        dtype = compute if definition.dtype == COMPUTE else definition.dtype
        if tensor.dtype != dtype:
            raise wrong_field((*path, index, "dtype"), tensor.dtype, dtype)
        _check_shape((*path, index, "shape"), tensor.shape, definition.shape, sizes)


def _check_shape(
    path: FieldPath,
    shape: tuple[int | str, ...],
    defined: tuple[int | str, ...],
    sizes: dict[str, tuple[int, str]],
) -> None:
    if len(shape) != len(defined):
        raise wrong_field(path, list(shape), f"{len(defined)} axes")
    for axis, (size, symbol) in enumerate(zip(shape, defined, strict=True)):
        field = (*path, axis)
        if symbol in AXES:
            if isinstance(size, int):
                raise wrong_field(field, size, f"the name of a dynamic axis, for example {symbol!r}")
        elif isinstance(size, str):
            raise wrong_field(field, size, "a size, because the network fixes this axis")
        elif isinstance(symbol, int):
            if size != symbol:
                raise wrong_field(field, size, str(symbol))
        else:
            # The first tensor that has a size which no other field states decides it.
            known, source = sizes.setdefault(symbol, (size, field_name(field)))
            if size != known:
                raise wrong_field(
                    field, size, f"{known} ({SIZES[symbol]}), to agree with the field '{source}'"
                )
