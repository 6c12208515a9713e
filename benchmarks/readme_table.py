"""Results files as Markdown tables, as the README shows them."""

import json
import re
import sys
from pathlib import Path
from typing import Any

from ..atomic import replacing
from .aims import aim_rows

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
    part = f"{scores['pictures']} of {scores['of']}"
    return [scores["data"], part if scores["pictures"] < scores["of"] else "-"]


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
