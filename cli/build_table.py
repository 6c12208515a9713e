"""Built engines as a table and as JSON."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table

    from ..engines.plan_record import BuiltEngines, BuiltStage


def stage_table(engines: "BuiltEngines") -> "Table":
    """A row per stage: profiles, size, precisions of the layers, seconds."""
    from rich.table import Table

    table = Table("stage", "profiles", "MB", "convolutions", "float layers", "seconds")
    for stage in engines.stages.values():
        table.add_row(
            stage.name,
            "\n".join(axis_ranges(stage)) or "-",
            f"{stage.bytes / 1e6:.1f}",
            _counts(_convolutions(stage)),
            _counts(float_layers(stage)),
            f"{stage.seconds:.1f}",
        )
    return table


def stage_json(stage: "BuiltStage") -> dict[str, Any]:
    """What the side-car of a plan says, as plain values."""
    return {
        "file": str(stage.file),
        "sha256": stage.sha256,
        "bytes": stage.bytes,
        "profiles": [dict(profile.shapes) for profile in stage.profiles],
        "layers": stage.network.layers,
        "precisions": {kind: dict(counts) for kind, counts in stage.network.precisions.items()},
        "convolution_weights": dict(stage.network.convolution_weights),
        "seconds": stage.seconds,
    }


def engines_json(engines: "BuiltEngines") -> dict[str, Any]:
    """A set of engines as plain values."""
    from dataclasses import asdict

    return {
        "folder": str(engines.folder),
        "backend": engines.backend,
        "version": engines.version,
        "target": engines.target,
        "gpu": engines.gpu,
        "built": engines.built,
        "limits": asdict(engines.limits),
        "options": asdict(engines.options),
        "stages": {name: stage_json(stage) for name, stage in engines.stages.items()},
    }


def axis_ranges(stage: "BuiltStage") -> list[str]:
    """A line per dynamic axis: least, usual and largest size in each profile, or once where they agree."""
    axes = {tensor.name: tensor.shape for tensor in stage.inputs}
    ranges: dict[str, list[tuple[int, ...]]] = {}
    for profile in stage.profiles:
        sizes = {
            axis: ends
            for name, shapes in profile.shapes.items()
            for axis, ends in zip(axes[name], zip(*shapes, strict=True), strict=True)
            if isinstance(axis, str)
        }
        for axis, ends in sizes.items():
            ranges.setdefault(axis, []).append(ends)
    lines = []
    for axis, several in sorted(ranges.items(), key=lambda item: -len({ends[::2] for ends in item[1]})):
        outer = {ends[::2] for ends in several}
        shown = [ends[::2] for ends in several[:1]] if len(outer) == 1 < len(several) else several
        lines.append(f"{axis} " + ", ".join("-".join(map(str, ends)) for ends in shown))
    return lines


def float_layers(stage: "BuiltStage") -> dict[str, int]:
    """Floating-point type to the number of layers whose output has it, constants left out."""
    totals: dict[str, int] = {}
    for kind, counts in stage.network.precisions.items():
        for dtype, count in counts.items():
            if kind != "CONSTANT" and dtype in ("FLOAT", "HALF", "BF16"):
                totals[dtype] = totals.get(dtype, 0) + count
    return totals


def _convolutions(stage: "BuiltStage") -> dict[str, int]:
    totals: dict[str, int] = {}
    for kind in ("CONVOLUTION", "DECONVOLUTION"):
        for dtype, count in stage.network.precisions.get(kind, {}).items():
            totals[dtype] = totals.get(dtype, 0) + count
    return totals


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{dtype} {counts[dtype]}" for dtype in sorted(counts)) or "-"
