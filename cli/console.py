"""What the commands print and where: results on stdout, progress and errors on stderr."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress

PROGRAM = "sed-trt"


def print_error(message: str) -> None:
    """Print one error line in the house style on stderr; line breaks in `message` become spaces."""
    print(f"{PROGRAM}: error: {' '.join(message.split())}", file=sys.stderr)


def print_note(message: str) -> None:
    """Print one line on stderr that is no error; line breaks in `message` become spaces."""
    print(f"{PROGRAM}: {' '.join(message.split())}", file=sys.stderr)


@contextmanager
def progress_bar() -> "Iterator[Progress]":
    """A Rich progress bar on stderr, which shows nothing where stderr is no terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    # Results that go to a file or pipe must not be drawn into the bar's terminal.
    redirect = sys.stdout.isatty()
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal, redirect_stdout=redirect
    ) as progress:
        yield progress
