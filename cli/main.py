"""The program `sed-trt`: its commands, and how errors reach the user."""

import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from .. import __version__
from ..errors import InputError
from .bench import bench
from .build import build
from .console import PROGRAM, print_error
from .data import data
from .doctor import doctor
from .evaluate import evaluate
from .export import export
from .inspect import inspect
from .segment import segment
from .train import train

_INTERRUPTED = 130

app = typer.Typer(name=PROGRAM, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
for _command in (segment, export, build, inspect, evaluate, train, doctor):
    app.command()(_command)
app.add_typer(bench, name="bench")
app.add_typer(data, name="data")


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"{PROGRAM} {__version__}")
        raise typer.Exit


@app.callback()
def _program(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Open-vocabulary segmentation with SED: exported per stage, run without PyTorch."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code: 0, 2 for bad input, 130 when interrupted.

    `arguments` are those after the program's name, None being the process's own.
    """
    for stream in (sys.stdout, sys.stderr):
        # Names of files and categories may hold what a terminal's encoding cannot show.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        code = app(args=arguments, prog_name=PROGRAM, standalone_mode=False)
    except InputError as error:
        print_error(str(error))
        return 2
    except typer.TyperException as error:
        message = " ".join(error.format_message().split()).rstrip(".")
        # Without arguments the help is printed and there is nothing to add.
        if message:
            print_error(f"{message}; see `{PROGRAM} --help`")
        return 2
    except (KeyboardInterrupt, typer.Abort):
        code = _INTERRUPTED
    # Typer turns Ctrl-C in a command into this code and says nothing.
    if code == _INTERRUPTED:
        print_error("interrupted")
    return int(code or 0)


if __name__ == "__main__":
    sys.exit(main())
