"""Markdown pages: the tables between the markers of a page, and reports with tables and plots.

python -m sed_trt.benchmarks.report.pages README.md docs/performance.md
"""

import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, count
from pathlib import Path
from typing import Any

from ...errors import InputError
from ...files import is_folder, make_folder, replacing
from ...stages import STAGES
from ..results_file import read_results
from .columns import Results, heading
from .joined import SCORES_KINDS, with_scores
from .tables import ON_PAGES, VIEWS

REPORT_FILE = "report.md"
CLOSING = "<!-- end of table -->"
# Stands in place of a table without rows.
NOT_MEASURED = "Not measured yet."
# The opening marker of a page names the stages, or a table of `VIEWS` and the results files in it; files
# after "with" hold the mIoU that latency rows get: <!-- results: latency.json with sed-tiny-bf16.json -->.
_OPENING = (
    rf"(<!-- (?:(?P<view>{'|'.join(VIEWS)}): (?P<files>[^>]+?)(?: with (?P<scores>[^>]+))?|stages) -->\n)"
)
_TABLE = re.compile(rf"{_OPENING}(?:(?!<!-- ).)*?{CLOSING}", re.DOTALL)


def markdown_table(files: Sequence[Results], view: str = "results", scores: Sequence[Results] = ()) -> str:
    """A table of results files, all of one kind.

    Args:
        files: the results.
        view: which table, of `VIEWS`.
        scores: results of `sed-trt evaluate`, whose mIoU stands in rows of latency.

    Raises:
        ValueError: they are of several kinds, or of one that has no such table.
    """
    kinds = {file["kind"] for file in files}
    if len(kinds) != 1:
        raise ValueError(f"one table cannot show results of the kinds {', '.join(sorted(kinds))}")
    (kind,) = kinds
    if kind not in VIEWS[view]:
        raise ValueError(f"results of the kind {kind} have no table {view!r}")
    if kind == "latency":
        files = [with_scores(file, scores) for file in files]
    headers, rows = VIEWS[view][kind].cells(files, page=True)
    return _markdown(headers, rows) if rows else NOT_MEASURED


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
    """The text of a Markdown page in which every table between its markers is generated again.

    Raises:
        InputError: a results file that the page names cannot be read.
        ValueError: an opening marker has no closing one, or the other way round, or results have no such
            table.
    """

    def read(names: str | None) -> list[Results]:
        return [read_results(page.parent / name) for name in (names or "").split()]

    def table(marked: re.Match[str]) -> str:
        if marked["view"] is None:
            content = stages_table()
        else:
            content = markdown_table(read(marked["files"]), marked["view"], read(marked["scores"]))
        return f"{marked[1]}{content}\n{CLOSING}"

    before = page.read_text(encoding="utf-8")
    after, tables = _TABLE.subn(table, before)
    if not tables == before.count(CLOSING) == len(re.findall(_OPENING, before)):
        raise ValueError(f"{page}: a marker of a table has no partner")
    return after


def write_report(sources: Sequence[Path], folder: Path) -> list[Path]:
    """Write the report of all results that have a table with rows.

    Args:
        sources: results files, or folders whose `*.json` are read.
        folder: created if it is missing.

    Returns:
        The files written, the report first.

    Raises:
        InputError: a source cannot be read, none has a table, or the folder cannot be written.
    """
    # Matplotlib comes with an extra of its own, which nothing else in this module needs.
    from .plots import PLOTS

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
    scores = [content for _, content in results if content["kind"] in SCORES_KINDS]
    parts, written = ["# Measured with sed-trt"], []
    names = _distinct([file.stem for file, _ in results])
    for name_of_file, (_, content) in zip(names, results, strict=True):
        parts += [f"## {name_of_file}", heading(content)]
        for view, tables in VIEWS.items():
            table = tables.get(content["kind"])
            # Some tables of a kind have no rows in some files.
            if table is not None and list(table.rows(content)):
                parts.append(markdown_table([content], view, scores))
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
    names: list[str] = []
    for stem in stems:
        numbered = (f"{stem}-{number}" for number in count(2))
        names.append(next(name for name in chain([stem], numbered) if name not in names))
    return names


if __name__ == "__main__":
    for page in map(Path, sys.argv[1:]):
        text = updated(page)
        with replacing(page) as temporary:
            temporary.write_text(text, encoding="utf-8")
