"""Plots of results files."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

from ...files import replacing
from ..speed.candidates import BASELINE, BASELINES, ONE_GRAPH, OURS, STEPS
from .latency_tables import of_row

matplotlib.use("Agg")


COLOURS = {OURS: "#1769aa", BASELINE: "#c4501b", "monolithic": "#5f8a1d"}
OTHER = "#777777"
# Markers by kind of rejection policy.
SHAPES = {"topk": "o", "min-pixels": "s", "budget": "^", "none": "D"}
# Categories and kept count of the row that a waterfall shows if it was measured.
WATERFALL_ROW = (150, "32")


@contextmanager
def figure(file: Path, width: float = 7.0, height: float = 4.2) -> Iterator[Axes]:
    """Axes to draw on; the plot is written whole or not at all, in the format that the suffix names."""
    plot, axes = plt.subplots(figsize=(width, height), layout="constrained")
    try:
        axes.spines[["top", "right"]].set_visible(False)
        yield axes
        with replacing(file) as temporary:
            # By itself it would add a suffix to a name without one, and so write another file.
            plot.savefig(temporary, dpi=130, format=file.suffix.lower().removeprefix(".") or "png")
    finally:
        plt.close(plot)


def by_vocabulary(content: Mapping[str, Any], file: Path) -> None:
    """Time of an image by size of the vocabulary: a line for each candidate and kept count."""
    graphs = [name for name, baseline in BASELINES.items() if baseline.mode == ONE_GRAPH]
    # By candidate and kept count, milliseconds by size of the vocabulary.
    lines: dict[tuple[str, str], dict[int, float]] = {}
    for row in content["results"]:
        for name, figures in row["candidates"].items():
            # A graph without rejection does the same in every row of a vocabulary.
            if name not in graphs or row["kept"] == "all":
                points = lines.setdefault((_label(content, row, name), row["kept"]), {})
                points.setdefault(row["categories"], figures["p50_ms"])
    with figure(file) as axes:
        for (name, kept), points in sorted(lines.items()):
            counts, times = zip(*sorted(points.items()), strict=True)
            style = "--" if kept == "all" else "-"
            axes.plot(counts, times, style, color=_colour(name), marker="o", markersize=3)
            axes.annotate(f"{name}, {kept}", (counts[-1], times[-1]), fontsize=7, xytext=(4, 0), **_BESIDE)
        axes.set(xscale="log", yscale="log", xlabel="categories", ylabel="ms for an image (median)")
        sizes = sorted({row["categories"] for row in content["results"]})
        axes.set_xticks(sizes, [str(size) for size in sizes])
        axes.xaxis.set_minor_formatter(NullFormatter())
        _plain(axes)
        axes.set_title(f"{_title(content)}: kept categories by line, dashed without rejection", fontsize=9)
        axes.margins(x=0.2)


def waterfall(content: Mapping[str, Any], file: Path) -> None:
    """The time of each stage of an image, one after the other, for each candidate that has stages."""
    rows = content["results"]
    sizes = [(row["categories"], row["kept"]) for row in rows]
    size = WATERFALL_ROW if WATERFALL_ROW in sizes else sizes[0]
    # The rows of several bundles share their baselines.
    measured: dict[str, Mapping[str, Any]] = {}
    for row in (row for row, each in zip(rows, sizes, strict=True) if each == size):
        for name, figures in row["candidates"].items():
            if figures["stages"]:
                measured.setdefault(_label(content, row, name), figures)
    with figure(file, height=0.35 * len(STEPS) * len(measured) + 1) as axes:
        labels: list[str] = []
        for name, figures in measured.items():
            start = 0.0
            for stage in STEPS:
                if stage not in figures["stages"]:
                    continue
                milliseconds = figures["stages"][stage]["p50_ms"]
                axes.barh(len(labels), milliseconds, left=start, color=_colour(name))
                axes.annotate(
                    f"{milliseconds:.0f}",
                    (start + milliseconds, len(labels)),
                    xytext=(3, 0),
                    fontsize=7,
                    **_BESIDE,
                )
                start += milliseconds
                labels.append(f"{name}: {stage}")
        axes.set_yticks(range(len(labels)), labels, fontsize=7)
        axes.invert_yaxis()
        axes.set_xlabel("ms (medians)")
        axes.set_title(f"{_title(content)}: {size[0]} categories, kept {size[1]}", fontsize=9)


def speed_against_miou(content: Mapping[str, Any], file: Path) -> None:
    """Policies by time and mIoU; a colour for each vocabulary, a shape for each kind of policy."""
    with figure(file) as axes:
        for number, (size, rows) in enumerate(_by_size(content).items()):
            axes.plot([], [], "o", color=f"C{number}", label=f"{size} categories")
            for row in rows:
                kind, _, parameters = row["rejection"].partition(":")
                place = (row["p50_ms"], row["miou"])
                axes.plot(*place, SHAPES.get(kind, "x"), color=f"C{number}", markersize=4)
                # Those of one vocabulary stand above their points, those of the next below.
                offset = (0, 7 if number % 2 == 0 else -7)
                axes.annotate(parameters, place, fontsize=6, ha="center", xytext=offset, **_BESIDE)
        for kind, shape in SHAPES.items():
            axes.plot([], [], shape, color=OTHER, markersize=4, label=kind)
        axes.set(xscale="log", xlabel="ms for an image (median)", ylabel="mIoU, %")
        axes.xaxis.set_major_formatter(ScalarFormatter())
        axes.set_title(f"{_title(content)}: rejection policies, {content['scenes']} scenes", fontsize=9)
        axes.legend(fontsize=7)
        axes.margins(x=0.15)


def kept_by_stage(content: Mapping[str, Any], file: Path) -> None:
    """Categories alive before and after each rejection, a line for each policy on the largest vocabulary."""
    size, rows = max(_by_size(content).items())
    with figure(file) as axes:
        for row in rows:
            counts = [size, *row["kept"]]
            axes.plot(range(4), counts, marker="o", markersize=3)
            axes.annotate(row["rejection"], (3, counts[-1]), fontsize=7, xytext=(4, 0), **_BESIDE)
        axes.set_xticks(range(4), ["vocabulary", "after scout", "after decode1", "after decode2"])
        axes.set(yscale="log", ylabel="categories alive (mean)")
        _plain(axes)
        axes.set_title(f"{_title(content)}: {size} categories", fontsize=9)
        axes.margins(x=0.15)


PLOTS = {
    "latency": {"by-vocabulary": by_vocabulary, "stages": waterfall},
    "sweep": {"speed-miou": speed_against_miou, "kept": kept_by_stage},
}

_BESIDE: dict[str, Any] = {"textcoords": "offset points", "va": "center"}


def _label(content: Mapping[str, Any], row: Mapping[str, Any], name: str) -> str:
    """A candidate of a row; ours with precision and backend, where the rows are of several bundles."""
    if name != OURS or (content["precision"] and content["backend"]):
        return name
    return f"{OURS} {of_row(content, row, 'precision')} {of_row(content, row, 'backend')}"


def _colour(label: str) -> str:
    return COLOURS[OURS] if label.startswith(OURS) else COLOURS.get(label, OTHER)


def _plain(axes: Axes) -> None:
    """Write the numbers of a logarithmic vertical axis as they are, rather than as powers."""
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.yaxis.set_major_formatter(ScalarFormatter())
    axes.yaxis.set_minor_formatter(NullFormatter())


def _by_size(content: Mapping[str, Any]) -> dict[int, list[Mapping[str, Any]]]:
    rows: dict[int, list[Mapping[str, Any]]] = {}
    for row in content["results"]:
        rows.setdefault(row["categories"], []).append(row)
    return rows


def _title(content: Mapping[str, Any]) -> str:
    precision = f" {content['precision']}" if content["precision"] else ""
    return f"{content['preset']}{precision} on {content['gpu'] or content['cpu']}"
