"""Results files as Markdown tables, as the README shows them."""

import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...files import replacing
from ..speed.candidates import BASELINE, OURS

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


CLOSING = "<!-- end of results -->"
# The opening marker names the files: <!-- results: one.json other.json -->
_OPENING = re.compile(r"(<!-- (results|aims): ([^>]+) -->\n)")
_MARKED = re.compile(rf"{_OPENING.pattern}(?:(?!<!-- ).)*?{CLOSING}", re.DOTALL)


def markdown_table(files: list[dict[str, Any]]) -> str:
    """The table of results files, all of one kind.

    Raises:
        ValueError: they are of several kinds.
    """
    kinds = {file["kind"] for file in files}
    if len(kinds) != 1:
        raise ValueError(f"one table cannot show results of the kinds {', '.join(sorted(kinds))}")
    headers, rows_of = TABLES[kinds.pop()]
    return _table(headers, [row for file in files for row in rows_of(file)])


def _table(headers: str, rows: list[str]) -> str:
    """A table without the columns in which no row has anything."""
    cells = [headers.split(" | "), *(row.split(" | ") for row in rows)]
    used = [any(row[column] != "-" for row in cells[1:]) for column in range(len(cells[0]))]
    lines = [" | ".join(cell for cell, use in zip(row, used, strict=True) if use) for row in cells]
    rule = "|".join(["---"] * sum(used))
    return "\n".join([f"| {lines[0]} |", f"|{rule}|", *(f"| {line} |" for line in lines[1:])])


def score_rows(file: dict[str, Any]) -> list[str]:
    """mIoU by vocabulary and policy."""
    return [
        " | ".join(
            [
                str(row["categories"]),
                row["rejection"],
                *(f"{row[key]:.1f}" for key in ("miou_seen", "miou_held_out", "pixel_accuracy")),
                _alive(row),
            ]
        )
        for row in file["results"]
    ]


def dataset_rows(file: dict[str, Any]) -> list[str]:
    """Scores by data set and policy, beside the published mIoU."""
    return [
        " | ".join(
            [
                file["presets"][0],
                *_data_cells(row),
                row["rejection"],
                *(
                    "-" if row[key] is None else f"{row[key]:.1f}"
                    for key in ("miou", "published", "fwiou", "pixel_accuracy", "class_accuracy")
                ),
                _alive(row),
            ]
        )
        for row in file["results"]
    ]


def dataset_parity_rows(file: dict[str, Any]) -> list[str]:
    """Two checkpoints or bundles on the same pictures of data sets."""
    return [
        " | ".join(
            [
                file["presets"][0],
                *_data_cells(row["source"]),
                *(_side(file[side]) for side in ("source", "against")),
                *_parity_cells(row),
            ]
        )
        for row in file["results"]
    ]


def _data_cells(scores: dict[str, Any]) -> list[str]:
    """A data set, and how many of its pictures were labelled if not all."""
    part = f"{scores['images']} of {scores['of']}"
    return [scores["data"], part if scores["images"] < scores["of"] else "-"]


def _side(source: dict[str, str]) -> str:
    """A precision, and what ran it."""
    return f"{source['precision']} ({source['runs_on']})"


def _parity_cells(row: dict[str, Any]) -> list[str]:
    """How two sides compare under a policy."""
    return [
        row["source"]["rejection"],
        f"{row['source']['miou']:.2f}",
        f"{row['against']['miou']:.2f}",
        f"{-row['drop']:+.2f}",
        f"{row['agreement']:.2f}",
    ]


def _alive(row: dict[str, Any]) -> str:
    """Mean numbers of categories left after each rejection point."""
    return " → ".join(f"{count:.0f}" for count in row["kept"])


def parity_rows(file: dict[str, Any]) -> list[str]:
    """Two precisions on the same scenes."""
    return [
        " | ".join(
            [
                _side(file["source"]),
                *_parity_cells(row),
            ]
        )
        for row in file["results"]
    ]


def island_rows(file: dict[str, Any]) -> list[str]:
    """What each FP32 island is worth."""
    return [
        " | ".join(
            [
                worth["island"],
                worth["reason"],
                *(f"{worth[key]:.1e}" for key in ("error_with", "error_without")),
                f"{worth['largest_sum']:,.0f}",
            ]
        )
        for worth in file["islands"]
    ]


def latency_rows(file: dict[str, Any]) -> list[str]:
    """Ours, the published network and the graph without rejection, with the ratios of alternating runs."""
    rows = []
    where = file["gpu"] or f"{file['cpu']}, {file['threads'] or file['cpu_cores']} cores"
    where = f"{where}, {file['precision']}"
    for row in file["results"]:
        found = row["candidates"]
        cells = [where, str(row["categories"]), row["kept"], _milliseconds(found.get("sed-trt"))]
        for name in ("published", "monolithic"):
            cells.append(_milliseconds(found.get(name)))
            ratio = row["ours_faster_than"].get(name, {}).get("whole")
            cells.append(f"{ratio['median']:.1f} ({ratio['q1']:.1f}-{ratio['q3']:.1f})" if ratio else "-")
        for group in ("decoder", "scout"):
            ratio = row["ours_faster_than"].get("published", {}).get(group)
            cells.append(f"{ratio['median']:.1f}" if ratio else "-")
        share = row.get("memory_ratio", {}).get("published")
        cells.append("-" if share is None else f"{share:.2f}")
        alike = found.get("sed-trt", {}).get("agreement")
        rows.append(" | ".join([*cells, "-" if alike is None else f"{alike:.2f}"]))
    return rows


def sweep_rows(file: dict[str, Any]) -> list[str]:
    """Rejection policies."""
    return [
        " | ".join(
            [
                str(row["categories"]),
                row["rejection"],
                _alive(row),
                f"{row['p50_ms']:.0f}",
                f"{row['decoder_p50_ms']:.0f}",
                f"{row['miou']:.2f}",
                f"{row['agreement']:.2f}",
            ]
        )
        for row in file["results"]
    ]


def profile_rows(file: dict[str, Any]) -> list[str]:
    """Stages by kind of operator, in percent of the stage."""
    return [
        " | ".join(
            [
                row["stage"],
                f"{row['ms']:.1f}",
                *(f"{100 * row['kinds_ms'][kind] / row['ms']:.0f}" for kind in file["kinds"]),
                ", ".join(f"{name} {taken:.0f}" for name, taken in list(row["operators_ms"].items())[:4]),
            ]
        )
        for row in file["results"]
    ]


def roofline_rows(file: dict[str, Any]) -> list[str]:
    """Floors by GPU, and what was measured."""
    return [
        " | ".join(
            [
                row["gpu"],
                row["design"],
                row["kind"],
                *(f"{row[key]:.2f}" if key in row else "-" for key in ("floor_ms", "fused_floor_ms", "ms")),
                f"{100 * row['fraction']:.0f} %" if "fraction" in row else "-",
            ]
        )
        for row in file["results"]
    ]


def _milliseconds(figures: dict[str, Any] | None) -> str:
    return "-" if figures is None else f"{figures['p50_ms']:.0f}"


TABLES = {
    "scores": (
        "categories | rejection | mIoU seen | mIoU held-out | pixel accuracy | alive after each point",
        score_rows,
    ),
    "datasets": (
        "network | data | pictures | rejection | mIoU | published mIoU | fwIoU | pixel accuracy "
        "| class accuracy | alive",
        dataset_rows,
    ),
    "dataset-parity": (
        "network | data | pictures | precision | against | rejection | mIoU | mIoU of that | difference "
        "| pixels alike, %",
        dataset_parity_rows,
    ),
    "parity": (
        "precision | rejection | mIoU | mIoU in FP32 | difference | pixels alike, %",
        parity_rows,
    ),
    "layerwise": (
        "island | why it is FP32 | relative error | in half | largest sum",
        island_rows,
    ),
    "latency": (
        "machine | categories | kept | sed-trt, ms | published, ms | ratio (quartiles) "
        "| one graph, none rejected, ms | ratio (quartiles) | decoder | first rejection | peak memory "
        "| labels alike, %",
        latency_rows,
    ),
    "sweep": (
        "categories | rejection | alive after each point | ms | decoder, ms | mIoU | labels like none, %",
        sweep_rows,
    ),
    "profile": (
        "stage | ms | matrix products, % | convolutions, % | norms, % | layout, % | element-wise, % "
        "| most, ms",
        profile_rows,
    ),
    "roofline": (
        "GPU | network | how known | floor, ms | fused floor, ms | taken, ms | fraction reached",
        roofline_rows,
    ),
}


AIM_HEADERS = "work, 32 kept | aim | reached (quartiles) | labels alike, %"


def updated(page: Path) -> str:
    """A Markdown page with the tables of all results files that it names between its markers.

    Raises:
        ValueError: an opening marker has no closing one, or the other way round.
    """

    def table(found: re.Match[str]) -> str:
        opening, kind, names = found.groups()
        files = [json.loads((page.parent / name).read_text(encoding="utf-8")) for name in names.split()]
        text = _table(AIM_HEADERS, [*aim_rows(files)]) if kind == "aims" else markdown_table(files)
        return f"{opening}{text}\n{CLOSING}"

    text = page.read_text(encoding="utf-8")
    remade, tables = _MARKED.subn(table, text)
    if not tables == text.count(CLOSING) == len(_OPENING.findall(text)):
        raise ValueError(f"{page}: a marker of a table has no partner")
    return remade


if __name__ == "__main__":
    for page in map(Path, sys.argv[1:]):
        text = updated(page)
        with replacing(page) as temporary:
            temporary.write_text(text, encoding="utf-8")
