"""Whether the stages of a manifest have the inputs and outputs that the table of stages gives them."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from .records import FieldPath, RecordError, field_name, wrong_field
from .stages import AXES, COMPUTE, SIZES, STAGE_NAMES, STAGES, TensorDefinition

if TYPE_CHECKING:
    from .bundle import Manifest, TensorSpec

# Precision of a bundle to the dtype of the tensors that follow it; 8-bit products are inside the graphs.
COMPUTE_DTYPES = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16", "int8": "float32"}

# Symbol of `SIZES` to its size and the field that says so.
_KnownSizes = dict[str, tuple[int, str]]


def check_stages(manifest: "Manifest") -> None:
    """Compare the stages of a manifest with the table of stages.

    Every stage must have the inputs and outputs of its definition, in order and with their dtypes. Dynamic
    axes must be dynamic, whatever their names; a size that has a symbol in the table must be the same
    wherever the symbol stands, and agree with the manifest's other fields.

    Raises:
        RecordError: they differ; names the field, the value that is there and what is expected.
    """
    if manifest.precision not in COMPUTE_DTYPES:
        raise wrong_field(("precision",), manifest.precision, f"one of {', '.join(COMPUTE_DTYPES)}")
    for name in STAGE_NAMES:
        if name not in manifest.stages:
            raise RecordError(f"the stage {name!r} is missing")
    for name in manifest.stages:
        if name not in STAGE_NAMES:
            raise RecordError(f"the stage {name!r} is unknown, expected {', '.join(STAGE_NAMES)}")
    compute = COMPUTE_DTYPES[manifest.precision]
    sizes = _stated_sizes(manifest)
    for definition in STAGES:
        stage = manifest.stages[definition.name]
        path = ("stages", definition.name)
        _check_tensors((*path, "inputs"), stage.inputs, definition.inputs, compute, sizes)
        _check_tensors((*path, "outputs"), stage.outputs, definition.outputs, compute, sizes)


def _stated_sizes(manifest: "Manifest") -> _KnownSizes:
    """The sizes that fields outside the stages say."""
    sizes = {
        "L": (manifest.context_length, "context_length"),
        "C": (manifest.embed_dim, "embed_dim"),
        "P": (len(manifest.templates), "templates"),
        "S": (manifest.image_size, "image_size"),
    }
    for symbol, scale in (("h", 1), ("2h", 2), ("4h", 4), ("8h", 8)):
        sizes[symbol] = (manifest.image_size // 32 * scale, "image_size")
    return sizes


def _check_tensors(
    path: FieldPath,
    tensors: "Sequence[TensorSpec]",
    definitions: Sequence[TensorDefinition],
    compute: str,
    sizes: _KnownSizes,
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
    sizes: _KnownSizes,
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
