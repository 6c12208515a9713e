"""Tables in Markdown: results files on pages, and the stages of the network.

python -m sed_trt.benchmarks.report.tables README.md docs/performance.md
"""

import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, count
from pathlib import Path
from typing import Any

from ...errors import InputError
from ...files import is_folder, make_folder, replacing
from ...stages import STAGES
from ..results_file import read_results
from .columns import Results, Table, heading
from .evaluation_tables import DATASET_PARITY, DATASETS, ISLANDS, PARITY, SCORES, STAGE_ERRORS, TENSOR_ERRORS
from .plots import PLOTS
from .speed_tables import (
    GPU_CHECK,
    LATENCY,
    LATENCY_ALONE,
    LATENCY_CANDIDATES,
    PROFILE,
    ROOFLINE,
    ROOFLINE_STAGES,
    SWEEP,
)

CLOSING = "<!-- end of table -->"
# The opening marker of a page names the results files, <!-- results: one.json other.json -->, or the stages.
_OPENING = r"(<!-- (?:results: (?P<files>[^>]+)|stages) -->\n)"
_TABLE = re.compile(rf"{_OPENING}(?:(?!<!-- ).)*?{CLOSING}", re.DOTALL)


def markdown_table(files: Sequence[Results]) -> str:
    """The table of results files, all of one kind.

    Raises:
        ValueError: they are of several kinds.
    """
    kinds = {file["kind"] for file in files}
    if len(kinds) != 1:
        raise ValueError(f"one table cannot show results of the kinds {', '.join(sorted(kinds))}")
    return _markdown(*ON_PAGES[kinds.pop()].cells(files, page=True))


def stages_table() -> str:
    """The table of the network's stages."""
    return _markdown(
        ["stage", "takes", "gives"],
        [[f"`{each.name}`", each.input_summary, each.output_summary] for each in STAGES],
    )


def _markdown(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [headers, *rows]
    written = [f"| {' | '.join(line)} |" for line in lines]
    return "\n".join([written[0], f"|{'|'.join(['---'] * len(headers))}|", *written[1:]])


def updated(page: Path) -> str:
    """A Markdown page with every table between its markers made anew.

    Raises:
        ValueError: an opening marker has no closing one, or the other way round.
    """

    def table(marked: re.Match[str]) -> str:
        names = marked["files"]
        if names is None:
            content = stages_table()
        else:
            files = [json.loads((page.parent / name).read_text(encoding="utf-8")) for name in names.split()]
            content = markdown_table(files)
        return f"{marked[1]}{content}\n{CLOSING}"

    text = page.read_text(encoding="utf-8")
    remade, tables = _TABLE.subn(table, text)
    if not tables == text.count(CLOSING) == len(re.findall(_OPENING, text)):
        raise ValueError(f"{page}: a marker of a table has no partner")
    return remade


if __name__ == "__main__":
    for page in map(Path, sys.argv[1:]):
        text = updated(page)
        with replacing(page) as temporary:
            temporary.write_text(text, encoding="utf-8")


REPORT_FILE = "report.md"


def write_report(sources: Sequence[Path], folder: Path) -> list[Path]:
    """Write the report of all results that have a table with rows.

    Args:
        sources: results files, or folders whose `*.json` are read.
        folder: made if it is not there.

    Returns:
        The files written, the report first.

    Raises:
        InputError: a source cannot be read, none has a table, or the folder cannot be written.
    """
    # Results without a single row have nothing to draw.
    results = [
        (file, content)
        for file, content in _read(sources)
        if content["kind"] in ON_PAGES and content.get("results") != []
    ]
    if not results:
        named = ", ".join(map(str, sources))
        raise InputError(
            f"{named}: no results with a table; make some with `sed-trt bench latency BUNDLE -o FILE`"
        )
    make_folder(folder)
    parts, written = ["# Measured with sed-trt"], []
    names = _distinct([file.stem for file, _ in results])
    for name_of_file, (_, content) in zip(names, results, strict=True):
        parts += [f"## {name_of_file}", heading(content), markdown_table([content])]
        for name, draw in PLOTS.get(content["kind"], {}).items():
            plot = folder / f"{name_of_file}-{name}.png"
            draw(content, plot)
            written.append(plot)
            parts.append(f"![{name}]({plot.name})")
    text = folder / REPORT_FILE
    with replacing(text) as temporary:
        temporary.write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    return [text, *written]


def _read(sources: Sequence[Path]) -> Iterator[tuple[Path, dict[str, Any]]]:
    for source in sources:
        if is_folder(source):
            for file in sorted(source.glob("*.json")):
                yield file, read_results(file)
        else:
            yield source, read_results(source)


def _distinct(stems: Sequence[str]) -> list[str]:
    """The stems, with a number where files of several folders have the same."""
    found: list[str] = []
    for stem in stems:
        numbered = (f"{stem}-{number}" for number in count(2))
        found.append(next(name for name in chain([stem], numbered) if name not in found))
    return found


# By the kind of the results, the table on pages and in reports.
ON_PAGES: Mapping[str, Table] = {
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
# The tables that the commands print.
ON_TERMINALS: Mapping[str, Sequence[Table]] = {kind: (table,) for kind, table in ON_PAGES.items()} | {
    "parity": (PARITY, STAGE_ERRORS),
    "layerwise": (TENSOR_ERRORS, ISLANDS),
    "latency": (LATENCY_CANDIDATES, LATENCY_ALONE),
    "roofline": (ROOFLINE_STAGES, ROOFLINE),
}
