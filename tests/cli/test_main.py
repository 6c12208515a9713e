"""The program's commands, exit codes and error lines."""

import re
import subprocess
import sys

import pytest

from sed_trt import __version__
from sed_trt.cli import main as module
from sed_trt.cli.main import main
from sed_trt.errors import InputError


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"sed-trt {__version__}\n"


@pytest.mark.parametrize(
    "command", ["segment", "serve", "video", "export", "build", "inspect", "train", "evaluate", "doctor"]
)
def test_every_command_shows_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--help"]) == 0
    assert f"Example: sed-trt {command}" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    "arguments",
    [
        ["segmnt"],
        ["segment"],
        ["segment", "bundle", "a.png", "--no-such-option"],
        ["segment", "bundle", "a.png", "--threads", "many"],
        ["segment", "bundle", "a.png", "--short-side", "-1"],
    ],
)
def test_usage_errors_are_one_line(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert re.fullmatch(r"sed-trt: error: [^\n]+\n", captured.err)
    assert captured.out == ""


def test_no_arguments_show_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    captured = capsys.readouterr()
    assert "segment" in captured.out + captured.err
    assert "error" not in captured.err


def raising(error: BaseException) -> object:
    def app(**options: object) -> None:
        raise error

    return app


def test_input_error_is_one_line_without_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "app", raising(InputError("x.png: is broken")))
    assert main([]) == 2
    assert capsys.readouterr().err == "sed-trt: error: x.png: is broken\n"


def test_line_breaks_do_not_break_the_error_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "app", raising(InputError("a\nb.png: is\r\n broken")))
    assert main([]) == 2
    assert capsys.readouterr().err == "sed-trt: error: a b.png: is broken\n"


def test_interrupt_exits_with_130(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "app", raising(KeyboardInterrupt()))
    assert main([]) == 130


def test_other_errors_are_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "app", raising(ZeroDivisionError()))
    with pytest.raises(ZeroDivisionError):
        main([])


def test_a_command_imports_its_own_module_alone() -> None:
    code = (
        "import sys\nfrom sed_trt.cli.main import main\nassert main(['segment', '--help']) == 0\n"
        "print(*sorted(name for name in sys.modules if name.startswith('sed_trt.cli.')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1].split() == [
        "sed_trt.cli.console",
        "sed_trt.cli.main",
        "sed_trt.cli.segment",
    ]


def test_an_unknown_command_suggests_a_similar_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["benhc"]) == 2
    assert "Did you mean 'bench'?" in capsys.readouterr().err
