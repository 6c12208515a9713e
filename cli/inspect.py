"""`sed-trt inspect`."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import InputError
from .console import PROGRAM

if TYPE_CHECKING:
    from ..benchmarks.precision.layer_comparison import LayerError
    from ..bundle import Bundle, Manifest
    from ..engines.store import BuiltEngines, BuiltStage

# Of a comparison, how many tensors are shown, and the image that its inputs come from.
_WORST_LAYERS = 20
_PHOTO = Path(__file__).parents[1] / "export" / "verification.jpg"


def inspect(
    bundle: Annotated[Path, typer.Argument(help="Bundle folder made by `sed-trt export`.")],
    engine: Annotated[
        bool,
        typer.Option(
            "--engine",
            help="Also load the engines and count their layers; needs a GPU they were built for.",
        ),
    ] = False,
    layers: Annotated[
        str | None,
        typer.Option(
            "--layers",
            metavar="STAGE",
            help="Instead compare the layers of a stage on TensorRT with ONNX Runtime; needs a GPU.",
            show_default=False,
        ),
    ] = None,
    against: Annotated[
        Path | None,
        typer.Option(
            "--against",
            help="With --layers: compare with that stage of another bundle instead, on ONNX Runtime.",
            show_default=False,
        ),
    ] = None,
    image: Annotated[
        Path | None,
        typer.Option(
            "--image", help="With --layers: what the stage's inputs come from.", show_default="a photo"
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show the stages of a bundle, their inputs and outputs, and the engines built from them.

    Example: sed-trt inspect bundle
    """
    if layers is not None:
        _show_layers(bundle, layers, against, image, as_json)
        return
    if against is not None or image is not None:
        raise InputError("--against, --image: they go with --layers STAGE; give that too")
    from ..bundle import Bundle
    from ..engines.store import list_built

    opened = Bundle.open(bundle)
    sets, damaged = list_built(opened)
    inspected, skipped = _inspected(sets) if engine and sets else ([None] * len(sets), [])
    warnings = [*damaged, *(line for built in sets for line in _warnings(built, opened.manifest)), *skipped]
    if as_json:
        print(json.dumps(_as_json(opened, sets, inspected, warnings), indent=1))
    else:
        _show(opened, sets, inspected, warnings)


def _show_layers(path: Path, stage: str, against: Path | None, image: Path | None, as_json: bool) -> None:
    from dataclasses import asdict

    from ..bundle import Bundle

    try:
        from ..benchmarks.precision.layer_comparison import compare_with_bundle, compare_with_tensorrt
    except ModuleNotFoundError as error:
        raise InputError(
            f"--layers: the package {error.name!r} is not installed; in sed-trt's folder, "
            "pip install -e '.[layers,cpu]'"
        ) from error

    bundle, photo = Bundle.open(path), image or _PHOTO
    if against is None:
        errors = compare_with_tensorrt(bundle, stage, photo)
    else:
        errors = compare_with_bundle(bundle, stage, photo, Bundle.open(against))
    if as_json:
        # JSON has no infinity.
        rows = [
            {name: None if value == float("inf") else value for name, value in asdict(error).items()}
            for error in errors
        ]
        print(json.dumps(rows, indent=1))
    else:
        _print_layers(stage, errors)


def _print_layers(stage: str, errors: "list[LayerError]") -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(markup=False, highlight=False)
    worst = sorted(errors, key=lambda error: -error.relative_error)[:_WORST_LAYERS]
    console.print(
        f"{stage}: {len(errors)} tensors compared; the {len(worst)} with the largest relative error, in the "
        "order of the graph"
    )
    table = Table("operator", "", "tensor", "relative error", "largest error", "largest value")
    for error in sorted(worst, key=lambda error: error.position):
        numbers = (error.relative_error, error.max_error, error.peak)
        table.add_row(
            str(error.position), error.operator, error.tensor, *(f"{number:.3g}" for number in numbers)
        )
    console.print(table)


def _inspected(sets: "list[BuiltEngines]") -> tuple[list[Any], list[str]]:
    """The layers of each set by stage and data type, or None and a line that says why not."""
    from ..engines.device.cuda import find_gpu
    from ..engines.trt.layers import engine_layers

    gpu = find_gpu()
    inspected: list[Any] = []
    skipped = []
    for built in sets:
        try:
            inspected.append(engine_layers(built, gpu))
        except InputError as error:
            inspected.append(None)
            skipped.append(f"skipped by --engine: {error}")
    return inspected, skipped


def _warnings(built: "BuiltEngines", manifest: "Manifest") -> list[str]:
    from ..engines.store import is_built_from, is_complete

    if not is_built_from(built, manifest):
        problem = "was built from other graphs than the bundle holds now"
        return [f"{built.folder}: {problem}; run `{built.command}`"]
    if not is_complete(built.folder):
        problem = "a plan is missing or was truncated after the build"
        return [f"{built.folder}: {problem}; run `{built.command}`"]
    mistaken = [stage.name for stage in built.stages.values() if _is_float_by_mistake(stage, manifest)]
    if not mistaken:
        return []
    precision = manifest.precision
    return [
        f"{built.folder}: most convolutions of {', '.join(mistaken)} are in float32, though the bundle is "
        f"{precision}; export it again with `sed-trt export --precision {precision}`"
    ]


def _is_float_by_mistake(stage: "BuiltStage", manifest: "Manifest") -> bool:
    """Whether most convolution weights of a stage are float32 though the bundle is in half precision."""
    from ..bundle import HALF_PRECISIONS
    from ..stages import BY_NAME

    if manifest.precision not in HALF_PRECISIONS or not BY_NAME[stage.name].half_weights:
        return False
    weights = stage.network.convolution_weights
    return 2 * weights.get("FLOAT", 0) > sum(weights.values())


def _as_json(
    bundle: "Bundle", sets: "list[BuiltEngines]", inspected: list[Any], warnings: list[str]
) -> dict[str, Any]:
    from dataclasses import asdict

    from .tables import engines_json

    manifest = bundle.manifest
    return {
        "bundle": str(bundle.path),
        "preset": manifest.preset,
        "precision": manifest.precision,
        "stages": {name: asdict(stage) for name, stage in manifest.stages.items()},
        "engines": [
            engines_json(built) | ({"engine_layers": layers} if layers else {})
            for built, layers in zip(sets, inspected, strict=True)
        ],
        "warnings": warnings,
    }


def _show(bundle: "Bundle", sets: "list[BuiltEngines]", inspected: list[Any], warnings: list[str]) -> None:
    from rich.console import Console
    from rich.table import Table

    from .tables import stage_table

    console = Console(markup=False, highlight=False)
    manifest = bundle.manifest
    bindings = Table("stage", "", "name", "type", "shape")
    for name, stage in manifest.stages.items():
        for side, tensors in (("in", stage.inputs), ("out", stage.outputs)):
            for tensor in tensors:
                shape = ", ".join(str(size) for size in tensor.shape)
                bindings.add_row(name, side, tensor.name, tensor.dtype, f"({shape})")
    console.print(f"{bundle.path}: {manifest.preset}, {manifest.precision}")
    console.print(bindings)
    for built, layers in zip(sets, inspected, strict=True):
        where = f", on {built.gpu}" if built.gpu else ""
        console.print(
            f"\n{built.folder.name}: for {built.target}, built by {built.backend} {built.version}{where} "
            f"at {built.built[:16]} UTC"
        )
        console.print(stage_table(built))
        for name, counts in (layers or {}).items():
            console.print(f"{name}, layers of the engine: {counts}")
    if not sets:
        console.print(f"no engines are built; `{PROGRAM} build {bundle.path}` builds them")
    for line in warnings:
        console.print(f"warning: {line}", soft_wrap=True)
