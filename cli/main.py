"""The program `sed-trt`: its commands, and how errors reach the user."""

import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from .. import __version__
from ..errors import InputError
from .console import PROGRAM, print_error

_INTERRUPTED = 130
# Each is a module of this package with a function or Typer app of the same name.
_COMMANDS = (
    "segment",
    "video",
    "serve",
    "export",
    "build",
    "inspect",
    "evaluate",
    "train",
    "doctor",
    "bench",
    "data",
)


class _Commands(TyperGroup):
    """The commands; the module of each is imported when it is called or listed."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Their names in the order of the help."""
        return list(_COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command of a name, or None."""
        # Typer suggests a similar name among those in `commands`, so an unknown name needs all of them.
        for name in {cmd_name} & set(_COMMANDS) or _COMMANDS:
            if name not in self.commands:
                self.add_command(_load(name), name)
        return self.commands.get(cmd_name)


def _load(name: str) -> Any:
    command = getattr(import_module(f".{name}", __package__), name)
    group = typer.Typer(add_completion=False)
    if isinstance(command, typer.Typer):
        group.add_typer(command, name=name)
    else:
        group.command(name)(command)
    return typer.main.get_group(group).commands[name]


app = typer.Typer(
    name=PROGRAM,
    cls=_Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


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
            context = getattr(error, "ctx", None)
            command = context.command_path if context else PROGRAM
            print_error(f"{message}; see `{command} --help`")
        return 2
    except (KeyboardInterrupt, typer.Abort):
        code = _INTERRUPTED
    # Typer turns Ctrl-C in a command into this code and says nothing.
    if code == _INTERRUPTED:
        print_error("interrupted")
    return int(code or 0)


if __name__ == "__main__":
    sys.exit(main())
