"""What a table of results is: columns, each a header and the function that gives the text of a cell.

Each table is defined once, in `tables.py`; `pages.py` writes it as Markdown and `cli/tables.py` prints it on
a terminal.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

# The content of a results file, and one row of it.
Results = Mapping[str, Any]
Row = Mapping[str, Any]
# The text of a cell without a figure; a column with no other one is left out.
NOTHING = "-"


@dataclass(frozen=True)
class Column:
    """One column.

    Attributes:
        header: on a page; "" leaves the column out there.
        cell: the text of a cell, from the results and the row.
        short: the header on a terminal, of 80 columns; "" leaves the column out there, None is `header`.
    """

    header: str
    cell: Callable[[Results, Row], str]
    short: str | None = None


@dataclass(frozen=True)
class Table:
    """One table.

    Attributes:
        title: above it on a terminal.
        columns: from left to right.
        rows: those of a results file.
    """

    title: str
    columns: Sequence[Column]
    rows: Callable[[Results], Iterable[Row]] = lambda results: results["results"]

    def cells(self, files: Iterable[Results], page: bool) -> tuple[list[str], list[list[str]]]:
        """Headers and rows for several results files, without the columns that have no figure."""
        pairs = [(file, row) for file in files for row in self.rows(file)]
        headers, columns = [], []
        for column in self.columns:
            header = column.header if page or column.short is None else column.short
            texts = [column.cell(file, row) for file, row in pairs] if header else []
            if any(text != NOTHING for text in texts):
                headers.append(header)
                columns.append(texts)
        return headers, [list(row) for row in zip(*columns, strict=True)]


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


def value(header: str, *keys: str, short: str | None = None, to_text: Callable[[Any], str] = str) -> Column:
    """The value below `keys`, one inside the other, as text; `NOTHING` where there is none."""

    def cell(_results: Results, row: Row) -> str:
        content: Any = row
        for key in keys:
            content = content.get(key) if content else None
        return NOTHING if content is None else to_text(content)

    return Column(header, cell, short)


def number(header: str, *keys: str, digits: int = 0, short: str | None = None) -> Column:
    """A number below `keys`, with so many digits after the point."""
    return value(header, *keys, short=short, to_text=lambda figure: f"{figure:.{digits}f}")


def scientific(header: str, *keys: str) -> Column:
    """A number below `keys` in scientific notation."""
    return value(header, *keys, to_text=lambda figure: f"{figure:.1e}")


def alive(header: str, *keys: str, short: str | None = None) -> Column:
    """Mean numbers of categories alive after each rejection point."""
    return value(header, *keys, short=short, to_text=lambda kept: "→".join(f"{count:.0f}" for count in kept))


def quartiles(header: str, *keys: str, digits: int = 1, short: str | None = None) -> Column:
    """A ratio of alternating runs: its median, and in brackets its quartiles."""

    def to_text(ratio: Mapping[str, float]) -> str:
        middle, lower, upper = (f"{ratio[key]:.{digits}f}" for key in ("median", "q1", "q3"))
        return f"{middle} ({lower}-{upper})"

    return value(header, *keys, short=short, to_text=to_text)
