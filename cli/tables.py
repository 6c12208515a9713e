"""The results of the commands as tables."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from ..benchmarks.report.columns import Table as ResultsTable
    from ..engines.store import BuiltEngines, BuiltStage

# Of the cores, kept busy by other processes, from which on times are not to be trusted.
BUSY_SHARE = 0.25


def framed(title: str, *headers: str) -> Table:
    """An empty table without an outer frame, which would not leave room for 80 columns."""
    return Table(*headers, title=title, show_edge=False, pad_edge=False)


def alive(kept: Sequence[float]) -> str:
    """Mean numbers of categories left after each rejection point."""
    return " / ".join(f"{count:.0f}" for count in kept)


def figure(value: float | None) -> str:
    """A percentage, or a dash where there is none."""
    return "-" if value is None else f"{value:.1f}"


def printed(table: Table) -> None:
    """Print a table on stdout."""
    Console().print(table)


def named(side: dict[str, str]) -> str:
    """What was measured, and on what."""
    return f"{side['name']}: {side['precision']} on {side['runs_on']}"


def show_parity(content: dict[str, Any], header: str, first: Callable[[dict[str, Any]], str]) -> None:
    """Print both sides' mIoU by policy; `first` makes the first column, below `header`, of a row's scores."""
    print(named(content["source"]))
    print(f"against {named(content['against'])}")
    headers = (header, "rejection", "mIoU", "against", "drop", "agree", "alive")
    table = framed("mIoU and agreement in percent", *headers)
    for row in content["results"]:
        source, against = row["source"], row["against"]
        table.add_row(
            escape(first(source)),
            source["rejection"],
            f"{source['miou']:.2f}",
            f"{against['miou']:.2f}",
            f"{row['drop']:+.2f}",
            f"{row['agreement']:.2f}",
            alive(source["kept"]),
        )
    printed(table)


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


WORST_STAGES = 8
WORST_TENSORS = 10


def show_evaluation(kind: str, content: dict[str, Any]) -> None:
    """Print the content of a results file of one of the kinds of `sed-trt evaluate`."""
    {
        "scores": _show_scores,
        "parity": _show_parity,
        "layerwise": _show_layerwise,
        "datasets": show_datasets,
        "dataset-parity": show_dataset_parity,
    }[kind](content)


def _show_scores(content: dict[str, Any]) -> None:
    table = framed(
        "mIoU in percent", "names", "rejection", "seen", "held-out", "all", "pixels", "alive after"
    )
    for row in content["results"]:
        keys = ("miou_seen", "miou_held_out", "miou", "pixel_accuracy")
        figures = (f"{row[key]:.1f}" for key in keys)
        table.add_row(str(row["categories"]), row["rejection"], *figures, alive(row["kept"]))
    printed(table)


def _show_parity(content: dict[str, Any]) -> None:
    show_parity(content, "names", lambda scores: str(scores["categories"]))
    if content["stages"] is not None:
        title = f"stages, worst first, {content['stages']['scenes']} scenes"
        table = framed(title, "stage", "output", "max error", "mean error", "largest value")
        for error in content["stages"]["errors"][:WORST_STAGES]:
            keys = ("max_error", "mean_error", "peak")
            table.add_row(error["stage"], error["output"], *(f"{error[key]:.2g}" for key in keys))
        printed(table)


def _show_layerwise(content: dict[str, Any]) -> None:
    precision = content["source"]["precision"]
    table = framed(f"tensors that lose most in {precision}", "stage", "tensor", "relative", "max error")
    for error in content["tensors"][:WORST_TENSORS]:
        figures = (f"{error[key]:.1e}" for key in ("relative_error", "max_error"))
        table.add_row(error["stage"], error["tensor"], *figures)
    printed(table)
    table = framed("FP32 islands, relative error", "island", "with", "without", "largest sum")
    for worth in content["islands"]:
        figures = (f"{worth[key]:.1e}" for key in ("error_with", "error_without", "largest_sum"))
        table.add_row(worth["island"], *figures)
    printed(table)


def show_datasets(content: dict[str, Any]) -> None:
    """Print the scores by set and policy, and beside the published ones where they may be compared."""
    print(named(content["source"]))
    table = framed("percent", "data", "rejection", "mIoU", "paper", "fwIoU", "pACC", "mACC", "alive")
    for row in content["results"]:
        keys = ("miou", "published", "fwiou", "pixel_accuracy", "class_accuracy")
        figures = (figure(row[key]) for key in keys)
        kept = alive(row["kept"]).replace(" ", "")
        table.add_row(escape(_short(row["data"])), row["rejection"], *figures, kept)
    printed(table)
    _say_what_was_left_out(content["results"])
    _show_published(content)


def show_dataset_parity(content: dict[str, Any]) -> None:
    """Print both sides' mIoU by set and policy."""
    show_parity(content, "data", lambda scores: _short(scores["data"]))
    _say_what_was_left_out([row["source"] for row in content["results"]])


def show_categories(content: dict[str, Any]) -> None:
    """Print IoU, accuracy and pixels of every category, a table for each set and policy."""
    for row in content["results"]:
        scores = row.get("source", row)
        title = f"{_short(scores['data'])}, rejection {scores['rejection']}"
        table = framed(escape(title), "category", "IoU", "accuracy", "pixels")
        for category in scores["per_category"]:
            figures = (figure(category[key]) for key in ("iou", "accuracy"))
            table.add_row(escape(category["name"]), *figures, str(category["pixels"]))
        printed(table)


def _show_published(content: dict[str, Any]) -> None:
    from ..benchmarks.accuracy.protocol import DATA, MIOU

    rows = [row for row in content["results"] if row["as_published"]]
    if not any(row["data"] in DATA for row in rows):
        return
    table = framed("mIoU beside the published one", "", "rejection", *DATA)
    for rejection in dict.fromkeys(row["rejection"] for row in rows):
        found = {row["data"]: row["miou"] for row in rows if row["rejection"] == rejection}
        table.add_row(content["presets"][0], rejection, *(figure(found.get(name)) for name in DATA))
    for (preset, rejection), published in MIOU.items():
        table.add_row(f"published {preset}", rejection, *map(figure, published))
    printed(table)


def _short(data: str) -> str:
    """Of an own folder the last part of its path says enough."""
    return data.rstrip("/").rsplit("/", 1)[-1]


def _say_what_was_left_out(rows: list[dict[str, Any]]) -> None:
    parts = {row["data"]: (row["pictures"], row["of"]) for row in rows if row["pictures"] < row["of"]}
    for data, (pictures, of) in parts.items():
        print(f"{_short(data)}: {pictures} of its {of} pictures")


def show_bench(kind: str, content: dict[str, Any]) -> None:
    """Print the content of a results file of one of the kinds of `sed-trt bench`."""
    from ..benchmarks.report import columns

    tables = {
        "latency": (columns.LATENCY_CANDIDATES, columns.LATENCY_ALONE),
        "profile": (columns.PROFILE,),
        "roofline": (columns.ROOFLINE_STAGES, columns.ROOFLINE),
        "sweep": (columns.SWEEP,),
    }
    print(columns.heading(content))
    for table in tables[kind]:
        print_table(table, content)
    if kind == "latency":
        _note_latency(content)
    elif kind == "sweep":
        for size, policy in content["recommended"].items():
            print(f"{size} names: {policy} is the fastest that loses at most {content['max_drop']:g} points")


def print_table(table: "ResultsTable", content: dict[str, Any]) -> None:
    """Print a table of results; nothing where it has no rows."""
    from ..benchmarks.report.columns import cells

    headers, rows = cells(table, [content])
    if rows:
        printed_table = framed(table.title, *map(escape, headers))
        for row in rows:
            printed_table.add_row(*map(escape, row))
        printed(printed_table)


def _note_latency(content: dict[str, Any]) -> None:
    """Print what a table of latency leaves out: throughput, failures, and whether the machine was busy."""
    for row in content["results"]:
        where = f"{row['categories']} categories, kept {row['kept']}"
        for name, speed in row.get("images_per_second", {}).items():
            print(f"{where}, {name}: {speed:.2f} images/s")
        if "stream_error" in row:
            print(f"{where}: stream: {row['stream_error']}")
        for name, error in row["errors"].items():
            print(f"{where}: {name}: {error}")
    for name, reason in content["skipped"].items():
        print(f"{name}: skipped: {reason}")
    load, cores = content["other_load"], content["cpu_cores"]
    if load is not None and load > cores * BUSY_SHARE and content["threads"] != 1:
        print(
            f"Machine busy (load {load:.1f} of other processes on {cores} cores). PyTorch's threads, which "
            "wait for each other, lose most by that, so the ratios flatter sed-trt: measure on an idle "
            "machine, or both with --threads 1."
        )
