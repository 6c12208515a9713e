"""What the CPU path is meant to reach for sed-b, beside what results files say it did."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .candidates import BASELINE, OURS

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Aim:
    """A figure to reach.

    Attributes:
        work: what is done.
        aim: the figure, in words.
        precision: of the bundle that is measured.
        categories: of the row that shows it.
        find: the figure reached, in words, from that row and all rows of its file; None where it has none.
    """

    work: str
    aim: str
    precision: str
    categories: int
    find: Callable[[Row, Sequence[Row]], str | None]


# Forced after each rejection in the rows that show an aim.
KEPT = "32"


def faster(group: str) -> Callable[[Row, Sequence[Row]], str | None]:
    """How many times faster ours does a group of stages than the published way: median and quartiles."""

    def find(row: Row, _rows: Sequence[Row]) -> str | None:
        ratio = row["ours_faster_than"].get(BASELINE, {}).get(group)
        return ratio and f"{ratio['median']:.1f}x ({ratio['q1']:.1f}-{ratio['q3']:.1f})"

    return find


def memory(row: Row, _rows: Sequence[Row]) -> str | None:
    """Peak memory as a share of the published way's."""
    share = row.get("memory_ratio", {}).get(BASELINE)
    return share and f"{share:.2f} of it"


def against_fewer(categories: int) -> Callable[[Row, Sequence[Row]], str | None]:
    """How many times longer ours takes for a row's vocabulary than for one of `categories`."""

    def find(row: Row, rows: Sequence[Row]) -> str | None:
        fewer = _row_of(rows, categories)
        if fewer is None:
            return None
        times = [each["candidates"][OURS]["p50_ms"] for each in (row, fewer)]
        return f"{times[0] / times[1]:.2f}x the time (medians, not alternating)"

    return find


AIMS = (
    Aim("decoder, 150 categories", "≥ 4x", "fp32", 150, faster("decoder")),
    Aim("decoder, 847 categories", "≥ 8x", "fp32", 847, faster("decoder")),
    Aim("first rejection, cost map included, 847 categories", "≥ 8x", "fp32", 847, faster("scout")),
    Aim("whole picture, 150 categories", "≥ 2.5x", "fp32", 150, faster("whole")),
    Aim("whole picture, 847 categories", "-", "fp32", 847, faster("whole")),
    Aim("whole picture in 8 bits, 150 categories", "≥ 4x", "int8", 150, faster("whole")),
    Aim("peak memory, 847 categories", "≤ 0.25", "fp32", 847, memory),
    Aim("whole picture, 4096 categories against 150, ours", "≤ 2.5x", "fp32", 4096, against_fewer(150)),
)


def aim_rows(files: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """A row for each aim, from the first of the latency results that shows it, with the labels' agreement."""
    for aim in AIMS:
        found = (_reached(aim, file) for file in files)
        reached = next((each for each in found if each is not None), "not measured | -")
        yield f"{aim.work} | {aim.aim} | {reached}"


def _reached(aim: Aim, file: Mapping[str, Any]) -> str | None:
    if (file["precision"], file["backend"]) != (aim.precision, "onnxruntime"):
        return None
    row = _row_of(file["results"], aim.categories)
    reached = None if row is None else aim.find(row, file["results"])
    if row is None or reached is None:
        return None
    alike = row["candidates"][OURS]["agreement"]
    return f"{reached} | {'-' if alike is None else format(alike, '.2f')}"


def _row_of(rows: Sequence[Row], categories: int) -> Row | None:
    wanted = (row for row in rows if (row["categories"], row["kept"]) == (categories, KEPT))
    return next((row for row in wanted if OURS in row["candidates"]), None)
