"""The results of the commands as tables."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from ..engines.store import BuiltEngines, BuiltStage


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
    parts = {row["data"]: (row["images"], row["of"]) for row in rows if row["images"] < row["of"]}
    for data, (images, of) in parts.items():
        print(f"{_short(data)}: {images} of its {of} images")


def show_bench(kind: str, content: dict[str, Any]) -> None:
    """Print the content of a results file of this kind."""
    tables = {
        "latency": _show_latency,
        "profile": _show_profile,
        "roofline": _show_roofline,
        "sweep": _show_sweep,
    }
    tables[kind](content)


def _show_latency(content: dict[str, Any]) -> None:
    where = content["gpu"] or content["cpu"]
    print(f"{content['preset']} {content['precision']} on {content['backend']}, {where}")
    load, cores = content["load_average"], content["cpu_cores"]
    if load is not None and load > cores / 2 and content["threads"] != 1:
        print(
            f"Other work had the machine (load {load:.1f} on {cores} cores). PyTorch's threads, which wait "
            "for each other, lose most by that, so the ratios flatter sed-trt: measure on an idle machine, "
            "or both with --threads 1."
        )
    for name, reason in content["skipped"].items():
        print(f"{name}: skipped: {reason}")
    table = framed("milliseconds; labels like those of published, %", *_ROW)
    for row in content["results"]:
        for name, figures in row["candidates"].items():
            keys = ("first_call_ms", "p50_ms", "p90_ms", "p99_ms")
            times = ("-" if figures[key] is None else f"{figures[key]:.0f}" for key in keys)
            ratio = row["ours_faster_than"].get(name, {}).get("whole")
            faster = f"{ratio['median']:.2f} ({ratio['q1']:.2f}-{ratio['q3']:.2f})" if ratio else "-"
            alike = figures["agreement"]
            labels = "-" if alike is None else f"{alike:.2f}"
            table.add_row(str(row["categories"]), row["kept"], name, *times, faster, labels)
        for name, error in row["errors"].items():
            table.add_row(str(row["categories"]), row["kept"], name, "failed", *[""] * 5)
            print(f"{row['categories']} categories, kept {row['kept']}: {name}: {error}")
    printed(table)
    _show_once(content["results"])


_ROW = ("names", "kept", "candidate", "first", "p50", "p90", "p99", "ours faster", "alike")


def _show_once(rows: list[dict[str, Any]]) -> None:
    """What was measured once for each vocabulary."""
    table = framed(
        "in a process of its own", "names", "kept", "candidate", "open ms", "first ms", "peak MiB", "GPU MiB"
    )
    for row in rows:
        for name, alone in row.get("alone", {}).items():
            if "error" in alone:
                table.add_row(str(row["categories"]), row["kept"], name, alone["error"])
                continue
            figures = (
                "-" if alone[key] is None else f"{alone[key]:.0f}"
                for key in ("open_ms", "first_ms", "peak_mib", "device_mib")
            )
            table.add_row(str(row["categories"]), row["kept"], name, *figures)
        if "stream_error" in row:
            print(f"{row['categories']} categories, kept {row['kept']}: stream: {row['stream_error']}")
        for name, speed in row.get("images_per_second", {}).items():
            print(f"{row['categories']} categories, kept {row['kept']}, {name}: {speed:.2f} images/s")
    if table.row_count:
        printed(table)


def _show_roofline(content: dict[str, Any]) -> None:
    counts = "/".join(map(str, content["kept"]))
    what = f"{content['preset']} {content['precision']}, {content['categories']} categories, kept {counts}"
    table = framed(what, "design", "stage", "GFLOP", "fewest MB", "fused MB")
    for stage in content["stages"]:
        figures = (f"{stage[key]:.1f}" for key in ("gflop", "fewest_mb", "fused_mb"))
        table.add_row(stage["design"], stage["stage"], *figures)
    printed(table)
    table = framed(
        "milliseconds for a picture", "GPU", "design", "how known", "floor", "fused", "taken", "reached"
    )
    for row in content["results"]:
        times = [f"{row[key]:.2f}" if key in row else "-" for key in ("floor_ms", "fused_floor_ms", "ms")]
        share = f"{100 * row['fraction']:.0f} %" if "fraction" in row else "-"
        table.add_row(row["gpu"], row["design"], row["kind"], *times, share)
    printed(table)


def _show_profile(content: dict[str, Any]) -> None:
    counts = "/".join(map(str, content["kept"]))
    what = f"{content['preset']} {content['precision']}, {content['categories']} categories, kept {counts}"
    table = framed(f"{what}: milliseconds", "stage", "all", *content["kinds"])
    for row in content["results"]:
        kinds = (f"{row['kinds_ms'][kind]:.0f}" for kind in content["kinds"])
        table.add_row(row["stage"], f"{row['ms']:.0f}", *kinds)
    printed(table)


def _show_sweep(content: dict[str, Any]) -> None:
    headers = ("names", "rejection", "alive after", "p50 ms", "decoder ms", "mIoU", "like none, %")
    table = framed(f"{content['preset']} {content['precision']}, {content['scenes']} scenes", *headers)
    for row in content["results"]:
        times = (f"{row[key]:.0f}" for key in ("p50_ms", "decoder_p50_ms"))
        scores = (f"{row['miou']:.2f}", f"{row['agreement']:.2f}")
        table.add_row(str(row["categories"]), row["rejection"], alive(row["kept"]), *times, *scores)
    printed(table)
    for size, policy in content["recommended"].items():
        print(f"{size} names: {policy} is the fastest that loses at most {content['max_drop']:g} points")
