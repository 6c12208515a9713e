"""The results of the commands as tables on the terminal."""

from collections import Counter
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from ..engines.store import BuiltEngines, BuiltStage

# Load of other processes, as a share of the cores, from which on times are not to be trusted.
BUSY_SHARE = 0.25


def stage_table(engines: "BuiltEngines") -> Table:
    """A row per stage: profiles, size, precisions of the layers, seconds."""
    table = Table("stage", "profiles", "MB", "convolutions", "float layers", "seconds")
    for stage in engines.stages.values():
        table.add_row(
            stage.name,
            "\n".join(_axis_ranges(stage)) or "-",
            f"{stage.plan.bytes / 1e6:.1f}",
            _counts(_convolutions(stage)),
            _counts(_float_layers(stage)),
            f"{stage.seconds:.1f}",
        )
    return table


def _axis_ranges(stage: "BuiltStage") -> list[str]:
    """A line per dynamic axis: min, opt and max size in each profile, or once where they agree."""
    axes = {tensor.name: tensor.shape for tensor in stage.inputs}
    ranges: dict[str, list[tuple[int, ...]]] = {}
    for profile in stage.profiles:
        sizes = {
            axis: ends
            for name, shapes in profile.items()
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


def _float_layers(stage: "BuiltStage") -> dict[str, int]:
    """Floating-point type to the number of layers whose output has it, constants left out."""
    layers: Counter[str] = Counter()
    for kind, counts in stage.network.precisions.items():
        if kind != "CONSTANT":
            layers.update(counts)
    return {dtype: layers[dtype] for dtype in ("FLOAT", "HALF", "BF16") if dtype in layers}


def _convolutions(stage: "BuiltStage") -> dict[str, int]:
    """Type to the number of convolutions whose output has it."""
    layers: Counter[str] = Counter()
    for kind in ("CONVOLUTION", "DECONVOLUTION"):
        layers.update(stage.network.precisions.get(kind, {}))
    return layers


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{dtype} {counts[dtype]}" for dtype in sorted(counts)) or "-"


def engines_json(engines: "BuiltEngines") -> dict[str, Any]:
    """A set of engines as plain values."""
    from msgspec.structs import asdict

    return {
        "folder": str(engines.folder),
        "backend": engines.backend,
        "version": engines.version,
        "target": engines.target,
        "gpu": engines.gpu,
        "built": engines.built,
        "limits": asdict(engines.limits),
        "options": asdict(engines.options),
        "stages": {name: _stage_json(engines, stage) for name, stage in engines.stages.items()},
    }


def _stage_json(engines: "BuiltEngines", stage: "BuiltStage") -> dict[str, Any]:
    """The record of a plan as plain values."""
    return {
        "file": str(engines.plan_file(stage.name)),
        "sha256": stage.plan.sha256,
        "bytes": stage.plan.bytes,
        "profiles": [dict(profile) for profile in stage.profiles],
        "layers": stage.network.layers,
        "precisions": {kind: dict(counts) for kind, counts in stage.network.precisions.items()},
        "convolution_weights": dict(stage.network.convolution_weights),
        "seconds": stage.seconds,
    }


def show_evaluation(kind: str, content: dict[str, Any]) -> None:
    """Print the content of a results file of one of the kinds of `sed-trt evaluate`."""
    if kind != "scores":
        print(_side(content["source"]))
    if "against" in content:
        print(f"against {_side(content['against'])}")
    _print_tables(kind, content)
    if kind in ("datasets", "dataset-parity"):
        _note_parts([row.get("source", row) for row in content["results"]])
    if kind == "datasets":
        _show_published(content)


def _show_published(content: dict[str, Any]) -> None:
    """Print the mIoU above the published ones, if any data set was evaluated by the published protocol."""
    from ..benchmarks.accuracy.protocol import DATA, MIOU

    rows = [row for row in content["results"] if row["as_published"]]
    if not any(row["data"] in DATA for row in rows):
        return
    table = _new_table("mIoU beside the published one", "", "rejection", *DATA)
    for rejection in dict.fromkeys(row["rejection"] for row in rows):
        scores = {row["data"]: row["miou"] for row in rows if row["rejection"] == rejection}
        table.add_row(content["presets"][0], rejection, *(_percent(scores.get(name)) for name in DATA))
    for (preset, rejection), published in MIOU.items():
        table.add_row(f"published {preset}", rejection, *map(_percent, published))
    _print_table(table)


def _note_parts(rows: list[dict[str, Any]]) -> None:
    """Print the data sets of which only a part of the images was labelled."""
    from ..benchmarks.report.tables import last_part

    parts = {row["data"]: (row["images"], row["of"]) for row in rows if row["images"] < row["of"]}
    for data, (images, of) in parts.items():
        print(f"{last_part(data)}: {images} of its {of} images")


def show_categories(content: dict[str, Any]) -> None:
    """Print IoU, accuracy and pixels of every category, a table for each set and policy."""
    from ..benchmarks.report.tables import last_part

    for row in content["results"]:
        scores = row.get("source", row)
        title = f"{last_part(scores['data'])}, rejection {scores['rejection']}"
        table = _new_table(escape(title), "category", "IoU", "accuracy", "pixels")
        for category in scores["per_category"]:
            figures = (_percent(category[key]) for key in ("iou", "accuracy"))
            table.add_row(escape(category["name"]), *figures, str(category["pixels"]))
        _print_table(table)


def show_bench(kind: str, content: dict[str, Any]) -> None:
    """Print the content of a results file of one of the kinds of `sed-trt bench`."""
    from ..benchmarks.report.columns import heading

    print(heading(content))
    _print_tables(kind, content)
    if kind == "latency":
        _note_latency(content)
    elif kind == "sweep":
        for size, policy in content["recommended"].items():
            print(f"{size} names: {policy} is the fastest that loses at most {content['max_drop']:g} points")


def _note_latency(content: dict[str, Any]) -> None:
    """Print throughput, growth, failures, and whether the machine was busy, below the tables of latency."""
    for row in content["results"]:
        where = f"{row['precision']} {row['backend']}, {row['categories']} categories, kept {row['kept']}"
        for name, speed in row.get("images_per_second", {}).items():
            ratio = row["stream_faster"].get(name)
            more = "" if ratio is None else f", {_ratio(ratio)} times as many"
            print(f"{where}, {name}: {speed:.2f} images/s{more}")
        if "stream_error" in row:
            print(f"{where}: stream: {row['stream_error']}")
        for name, error in row["errors"].items():
            print(f"{where}: {name}: {error}")
    for row in content["growth"]:
        sizes = " and ".join(map(str, row["categories"]))
        where = f"{row['precision']} {row['backend']}, {sizes} categories in turn"
        if "error" in row:
            print(f"{where}: {row['error']}")
        for longer in row.get("longer", []):
            print(f"{where}: {_ratio(longer)} times as long")
    for name, reason in content["skipped"].items():
        print(f"{name}: skipped: {reason}")
    load, cores = content["other_load"], content["cpu_cores"]
    if load is not None and load > cores * BUSY_SHARE and content["threads"] != 1:
        print(
            f"Machine busy (load {load:.1f} of other processes on {cores} cores). PyTorch's threads, which "
            "wait for each other, lose most by that, so the ratios flatter sed-trt: measure on an idle "
            "machine, or both with --threads 1."
        )


def _ratio(ratio: dict[str, float]) -> str:
    """A ratio of alternating runs and its quartiles."""
    return f"{ratio['median']:.2f} ({ratio['q1']:.2f}-{ratio['q3']:.2f})"


def _print_tables(kind: str, content: dict[str, Any]) -> None:
    """Print the tables of this kind of results that have rows."""
    from ..benchmarks.report.tables import ON_TERMINALS

    for table in ON_TERMINALS[kind]:
        headers, rows = table.cells([content], page=False)
        if not rows:
            continue
        shown = _new_table(table.title)
        for header, *texts in zip(headers, *rows, strict=True):
            # Headers may be broken between words, cells not at all.
            shown.add_column(escape(header), min_width=max(map(len, [*header.split(), *texts])))
        for row in rows:
            shown.add_row(*map(escape, row))
        _print_table(shown)


def _new_table(title: str, *headers: str) -> Table:
    """An empty table without an outer frame, which would not leave room for 80 columns."""
    return Table(*headers, title=title, show_edge=False, pad_edge=False)


def _print_table(table: Table) -> None:
    """Print a table on stdout."""
    Console().print(table)


def _percent(value: float | None) -> str:
    """A percentage, or a dash where there is none."""
    return "-" if value is None else f"{value:.1f}"


def _side(side: dict[str, str]) -> str:
    """One side of an evaluation: its name, its precision and what ran it."""
    return f"{side['name']}: {side['precision']} on {side['runs_on']}"
