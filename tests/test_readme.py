"""The README's commands run, and its figures are those of the results file."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from sed_trt.benchmarks.readme_table import markdown_table
from sed_trt.tests.paths import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    """The README's fenced blocks of one language."""
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


@pytest.fixture
def checkout(tmp_path: Path, tiny_bundle: Path) -> Path:
    """A folder that looks like the repository's root with a bundle in it."""
    for name in ("checkpoints", "examples"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "bundle").symlink_to(tiny_bundle)
    return tmp_path


def commands() -> list[str]:
    """The README's segment commands: the bundle fixture has exported already, and training takes hours."""
    lines = [line.split("#")[0].strip() for block in blocks("bash") for line in block.splitlines()]
    return [line for line in lines if line.startswith("sed-trt segment ")]


def test_there_are_commands() -> None:
    assert len(commands()) >= 2
    assert "make demo" in README and "make test" in README


@pytest.mark.parametrize("command", commands())
def test_command_runs(command: str, checkout: Path) -> None:
    program = Path(sys.executable).with_name("sed-trt")
    words = shlex.split(command)[1:]
    done = subprocess.run([program, *words], cwd=checkout, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert list((checkout / "segmented").glob("*.overlay.png"))


def test_python_example_runs(checkout: Path) -> None:
    (code,) = blocks("python")
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=checkout, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert (checkout / "out.png").stat().st_size > 0
    assert "scene-2.png" in done.stdout


@pytest.mark.parametrize("file", re.findall(r"<!-- results: (\S+) -->", README))
def test_table_is_that_of_the_results_file(file: str) -> None:
    shown = README.split(f"<!-- results: {file} -->\n")[1].split("\n<!-- end of results -->")[0]
    assert shown.strip() == markdown_table(json.loads((ROOT / file).read_text()))
