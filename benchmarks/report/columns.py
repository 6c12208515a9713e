"""The columns of every table of results: a header, and the function that gives the text of a cell.

A table is defined here once; `tables.py` writes it as Markdown and `cli/tables.py` prints it on a terminal.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..speed.candidates import BASELINE, MONOLITHIC, OURS
from ..speed.profile import KINDS, OTHER

# The content of a results file, and one row of it.
Results = Mapping[str, Any]
Row = Mapping[str, Any]
# The text of a cell without a figure; a column with no other one is left out.
NOTHING = "-"


@dataclass(frozen=True)
class Column:
    """One column.

    Attributes:
        header: above it.
        cell: the text of a cell, from the results and the row.
    """

    header: str
    cell: Callable[[Results, Row], str]


def _listed_results(results: Results) -> Iterable[Row]:
    rows: Iterable[Row] = results["results"]
    return rows


@dataclass(frozen=True)
class Table:
    """One table.

    Attributes:
        title: what it shows, in a few words.
        columns: from left to right.
        rows: those of a results file.
    """

    title: str
    columns: Sequence[Column]
    rows: Callable[[Results], Iterable[Row]] = _listed_results


def cells(table: Table, files: Iterable[Results]) -> tuple[list[str], list[list[str]]]:
    """Headers and rows of a table of several results files, without the columns that have no figure."""
    pairs = [(file, row) for file in files for row in table.rows(file)]
    by_column = [[column.cell(file, row) for file, row in pairs] for column in table.columns]
    used = [place for place, column in enumerate(by_column) if any(cell != NOTHING for cell in column)]
    headers = [table.columns[place].header for place in used]
    return headers, [list(row) for row in zip(*(by_column[place] for place in used), strict=True)]


def heading(results: Results) -> str:
    """What was measured and on what, on one line."""
    known = {
        "kind": results.get("kind"),
        "preset": results.get("preset"),
        "precision": results.get("precision"),
        "backend": results.get("backend"),
        "categories": results.get("categories"),
        "kept": results.get("kept"),
        "GPU": results.get("gpu"),
        "driver": results.get("driver"),
        "CPU": results.get("cpu"),
        "cores": results.get("cpu_cores"),
        "load average": results.get("load_average"),
        "load of other processes": results.get("other_load"),
        "commit": results.get("commit"),
    } | results.get("versions", {})
    return ", ".join(f"{name} {_plain(value)}" for name, value in known.items() if value is not None)


def _plain(value: Any) -> str:
    """A value of a heading; a list is one of kept categories."""
    if isinstance(value, float):
        return f"{value:.2f}"
    return "/".join(map(str, value)) if isinstance(value, list) else str(value)


def text(header: str, *keys: str, of: Callable[[Any], str] = str) -> Column:
    """The value below `keys`, one inside the other, written by `of`; `NOTHING` where there is none."""

    def cell(_results: Results, row: Row) -> str:
        value: Any = row
        for key in keys:
            value = value.get(key) if value else None
        return NOTHING if value is None else of(value)

    return Column(header, cell)


def number(header: str, *keys: str, digits: int = 0, scale: float = 1.0) -> Column:
    """A number below `keys` times `scale`, with so many digits after the point."""
    return text(header, *keys, of=lambda value: f"{scale * value:.{digits}f}")


def scientific(header: str, *keys: str) -> Column:
    """A number below `keys` in scientific notation."""
    return text(header, *keys, of=lambda value: f"{value:.1e}")


def alive(header: str, *keys: str) -> Column:
    """Mean numbers of categories alive after each rejection point."""
    return text(header, *keys, of=lambda counts: " → ".join(f"{count:.0f}" for count in counts))


def quartiles(header: str, *keys: str) -> Column:
    """A ratio of alternating runs: its median, and in brackets its quartiles."""
    return text(header, *keys, of=lambda each: f"{each['median']:.1f} ({each['q1']:.1f}-{each['q3']:.1f})")


# Evaluation.

SCORES = Table(
    "mIoU on scenes, %",
    (
        text("categories", "categories"),
        text("rejection", "rejection"),
        number("mIoU seen", "miou_seen", digits=1),
        number("mIoU held-out", "miou_held_out", digits=1),
        number("pixel accuracy", "pixel_accuracy", digits=1),
        alive("alive after each point", "kept"),
    ),
)


def _side(header: str, key: str) -> Column:
    """The precision of one of the two that are compared, and what ran it."""
    return Column(header, lambda results, _row: f"{results[key]['precision']} ({results[key]['runs_on']})")


def _part(scores: Row) -> str:
    """How many images of a data set were labelled, if not all."""
    return f"{scores['pictures']} of {scores['of']}" if scores["pictures"] < scores["of"] else NOTHING


_NETWORK = Column("network", lambda results, _row: str(results["presets"][0]))
_PARITY = (
    text("rejection", "source", "rejection"),
    number("mIoU", "source", "miou", digits=2),
    number("mIoU of the reference", "against", "miou", digits=2),
    text("difference", "drop", of=lambda drop: f"{-drop:+.2f}"),
    number("pixel agreement, %", "agreement", digits=2),
)

DATASETS = Table(
    "scores on data sets, %",
    (
        _NETWORK,
        text("data", "data"),
        Column("images", lambda _results, row: _part(row)),
        text("rejection", "rejection"),
        number("mIoU", "miou", digits=1),
        number("published mIoU", "published", digits=1),
        number("fwIoU", "fwiou", digits=1),
        number("pixel accuracy", "pixel_accuracy", digits=1),
        number("class accuracy", "class_accuracy", digits=1),
        alive("alive", "kept"),
    ),
)
DATASET_PARITY = Table(
    "two checkpoints or bundles on the same images",
    (
        _NETWORK,
        text("data", "source", "data"),
        Column("images", lambda _results, row: _part(row["source"])),
        _side("precision", "source"),
        _side("reference", "against"),
        *_PARITY,
    ),
)
PARITY = Table("two precisions on the same scenes", (_side("precision", "source"), *_PARITY))
ISLANDS = Table(
    "FP32 islands",
    (
        text("island", "island"),
        text("why it is FP32", "reason"),
        scientific("relative error", "error_with"),
        scientific("in half", "error_without"),
        text("largest sum", "largest_sum", of=lambda value: f"{value:,.0f}"),
    ),
    lambda results: results["islands"],
)

# Latency: the page's table has a row for each vocabulary and kept count, the command's for each candidate.


def _machine(results: Results, _row: Row) -> str:
    where = results["gpu"] or f"{results['cpu']}, {results['threads'] or results['cpu_cores']} cores"
    return f"{where}, {results['precision']}"


def _p50(header: str, candidate: str) -> Column:
    return number(header, "candidates", candidate, "p50_ms")


def _times_ours(header: str, candidate: str, group: str = "whole") -> Column:
    return quartiles(header, "ours_faster_than", candidate, group)


LATENCY = Table(
    "latency",
    (
        Column("machine", _machine),
        text("categories", "categories"),
        text("kept", "kept"),
        _p50("sed-trt, ms", OURS),
        _p50("published, ms", BASELINE),
        _times_ours("ratio (quartiles)", BASELINE),
        _p50("one graph, none rejected, ms", MONOLITHIC),
        _times_ours("ratio (quartiles)", MONOLITHIC),
        _times_ours("decoder", BASELINE, "decoder"),
        _times_ours("first rejection", BASELINE, "scout"),
        number("peak memory", "memory_ratio", BASELINE, digits=2),
        number("pixel agreement, %", "candidates", OURS, "agreement", digits=2),
    ),
)


def _candidate_rows(results: Results) -> Iterator[Row]:
    for row in results["results"]:
        common = {"categories": row["categories"], "kept_row": row["kept"]}
        for name, figures in row["candidates"].items():
            ratio = row["ours_faster_than"].get(name, {}).get("whole")
            yield {**figures, **common, "candidate": name, "ratio": ratio}
        for name in row["errors"]:
            yield {**common, "candidate": f"{name} failed"}


def _alone_rows(results: Results) -> Iterator[Row]:
    for row in results["results"]:
        for name, figures in row.get("alone", {}).items():
            yield {**figures, "categories": row["categories"], "kept_row": row["kept"], "candidate": name}


_CASE = (text("categories", "categories"), text("kept", "kept_row"), text("candidate", "candidate"))

LATENCY_CANDIDATES = Table(
    "milliseconds for an image, and pixel agreement with published",
    (
        *_CASE,
        number("first", "first_call_ms"),
        number("p50", "p50_ms"),
        number("p90", "p90_ms"),
        number("p99", "p99_ms"),
        quartiles("ours faster", "ratio"),
        number("agreement, %", "agreement", digits=2),
    ),
    _candidate_rows,
)
LATENCY_ALONE = Table(
    "in a process of its own",
    (
        *_CASE,
        number("open, ms", "open_ms"),
        number("first, ms", "first_ms"),
        number("peak MiB", "peak_mib"),
        number("GPU MiB", "device_mib"),
        text("error", "error"),
    ),
    _alone_rows,
)
SWEEP = Table(
    "rejection policies",
    (
        text("categories", "categories"),
        text("rejection", "rejection"),
        alive("alive after each point", "kept"),
        number("ms", "p50_ms"),
        number("decoder, ms", "decoder_p50_ms"),
        number("mIoU", "miou", digits=2),
        number("pixel agreement with none, %", "agreement", digits=2),
    ),
)


def _share(kind: str) -> Column:
    """The part of a stage's time that a kind of operator takes, in percent."""
    return Column(f"{kind}, %", lambda _results, row: f"{100 * row['kinds_ms'][kind] / row['ms']:.0f}")


def _slowest(_results: Results, row: Row) -> str:
    return ", ".join(f"{name} {taken:.0f}" for name, taken in list(row["operators_ms"].items())[:4])


PROFILE = Table(
    "time by kind of operator",
    (
        text("stage", "stage"),
        number("ms", "ms", digits=1),
        *(_share(kind) for kind in (*KINDS, OTHER)),
        Column("slowest operators, ms", _slowest),
    ),
)
ROOFLINE_STAGES = Table(
    "work of each stage",
    (
        text("network", "design"),
        text("stage", "stage"),
        number("GFLOP", "gflop", digits=1),
        number("minimum MB", "minimum_mb", digits=1),
        number("fused MB", "fused_mb", digits=1),
    ),
    lambda results: results["stages"],
)
ROOFLINE = Table(
    "milliseconds for an image",
    (
        text("GPU", "gpu"),
        text("network", "design"),
        text("source", "kind"),
        number("floor, ms", "floor_ms", digits=2),
        number("fused floor, ms", "fused_floor_ms", digits=2),
        number("measured, ms", "ms", digits=2),
        text("fraction reached", "fraction", of=lambda share: f"{100 * share:.0f} %"),
    ),
)


def _step_rows(results: Results) -> Iterator[Row]:
    """A row for each step, and for each candidate of those that measured latency."""
    for record in results["results"]:
        if "latency" not in record:
            yield record
            continue
        latency = record["latency"]
        for row in _candidate_rows(latency):
            stages = {name: times["p50_ms"] for name, times in row.get("stages", {}).items()}
            runs_on = ", ".join(latency["candidates"].get(row["candidate"], []))
            yield {**record, **row, "runs_on": runs_on or None, "stages_ms": stages or None}


GPU_CHECK = Table(
    "what this machine runs",
    (
        text("step", "name"),
        text("state", "state"),
        number("s", "seconds"),
        text("candidate", "candidate"),
        text("runs on", "runs_on"),
        number("pixel agreement, %", "agreement", digits=2),
        number("first, ms", "first_call_ms", digits=1),
        number("p50, ms", "p50_ms", digits=1),
        number("p90, ms", "p90_ms", digits=1),
        quartiles("ours faster", "ratio"),
        text(
            "ms by stage", "stages_ms", of=lambda stages: " ".join(f"{k} {v:.1f}" for k, v in stages.items())
        ),
        text("reason", "reason", of=lambda reason: reason.replace("|", "/")[:200]),
    ),
    _step_rows,
)

# The table that pages and reports show of each kind of results.
TABLES: Mapping[str, Table] = {
    "scores": SCORES,
    "datasets": DATASETS,
    "dataset-parity": DATASET_PARITY,
    "parity": PARITY,
    "layerwise": ISLANDS,
    "latency": LATENCY,
    "sweep": SWEEP,
    "profile": PROFILE,
    "roofline": ROOFLINE,
    "gpu-check": GPU_CHECK,
}
