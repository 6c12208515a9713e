"""Results files as one Markdown report with plots."""

from collections.abc import Iterator, Sequence
from itertools import chain, count
from pathlib import Path
from typing import Any

from ...errors import InputError
from ...files import is_folder, make_folder, replacing
from ..results_file import read_results
from .columns import heading
from .plots import PLOTS
from .tables import ON_PAGES, markdown_table

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
