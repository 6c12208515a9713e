"""What the tables of results have in common."""

from collections.abc import Callable, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table


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
