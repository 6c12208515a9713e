"""What the commands print and where: results on stdout, progress and errors on stderr."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError

if TYPE_CHECKING:
    from rich.progress import Progress

PROGRAM = "sed-trt"


def print_error(message: str) -> None:
    """Print one error line on stderr, as every command does; line breaks in `message` become spaces."""
    print(f"{PROGRAM}: error: {' '.join(message.split())}", file=sys.stderr)


def print_note(message: str) -> None:
    """Print one line on stderr that is no error; line breaks in `message` become spaces."""
    print(f"{PROGRAM}: {' '.join(message.split())}", file=sys.stderr)


@contextmanager
def progress_bar() -> "Iterator[Progress]":
    """A Rich progress bar on stderr; nothing is drawn where stderr is no terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    # Results that go to a file or pipe must not be redirected to the terminal of the bar.
    redirect = sys.stdout.isatty()
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal, redirect_stdout=redirect
    ) as progress:
        yield progress


@contextmanager
def needs(extra: str) -> Iterator[None]:
    """Turn a missing package into the advice to install the extra that brings it.

    ONNX Runtime comes with two extras of its own.

    Raises:
        InputError: an import inside the block failed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        wanted = (
            "'.[cpu]', or '.[gpu]' with an NVIDIA GPU" if error.name == "onnxruntime" else f"'.[{extra}]'"
        )
        raise InputError(
            f"the package {error.name!r} is not installed; in sed-trt's folder, pip install -e {wanted}"
        ) from error


def deliver(
    kind: str,
    content: dict[str, Any],
    show: Callable[[str, dict[str, Any]], None],
    output: Path | None,
    as_json: bool,
) -> None:
    """Print the content of a results file, as JSON or with `show`, and write it to `output` if that is given.

    Raises:
        InputError: the file cannot be written.
    """
    from ..benchmarks.results_file import results_text
    from ..files import replacing

    text = results_text(kind, content)
    # Before the file is written: a full disk must not cost the results.
    if as_json:
        print(text, end="")
    else:
        show(kind, content)
    if output is not None:
        with replacing(output) as temporary:
            temporary.write_text(text, encoding="utf-8")
