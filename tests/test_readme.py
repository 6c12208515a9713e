"""The README's commands run, and its figures are those of the results file."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sed_trt.benchmarks.report.pages import updated
from sed_trt.tests.paths import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    """The README's fenced blocks of one language."""
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


@pytest.fixture
def checkout(tmp_path: Path, tiny_bundle: Path, tiny_bundle_fp16: Path) -> Path:
    """A folder that looks like the repository's root with two bundles in it."""
    for name in ("checkpoints", "examples"):
        (tmp_path / name).symlink_to(ROOT / name)
    # Copies, since engines are built into them.
    shutil.copytree(tiny_bundle, tmp_path / "bundle")
    shutil.copytree(tiny_bundle_fp16, tmp_path / "bundle-fp16")
    return tmp_path


def commands(*names: str) -> list[str]:
    """The README's commands with one of these names, in order."""
    lines = [line.split("#")[0].strip() for block in blocks("bash") for line in block.splitlines()]
    return [line for line in lines if line.startswith(tuple(f"sed-trt {name} " for name in names))]


def run(command: str, folder: Path) -> str:
    """What a command prints; it must succeed."""
    program = Path(sys.executable).with_name("sed-trt")
    words = shlex.split(command)[1:]
    done = subprocess.run([program, *words], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_there_are_commands() -> None:
    assert len(commands("segment")) >= 2
    assert "make demo" in README and "make test" in README


@pytest.mark.parametrize("command", commands("segment"))
def test_segment_runs(command: str, checkout: Path) -> None:
    run(command, checkout)
    assert list((checkout / "segmented").glob("*.overlay.png"))


def test_evaluate_runs(checkout: Path) -> None:
    (command,) = (each for each in commands("evaluate") if "--against" in each)
    assert "drop" in run(command, checkout)


def test_build_and_inspect_run(checkout: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    build, inspect = commands("build", "inspect")
    assert "sm86" in run(build, checkout)
    assert "decode3" in run(inspect, checkout)


def test_python_example_runs(checkout: Path) -> None:
    (code,) = blocks("python")
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=checkout, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert (checkout / "out.png").stat().st_size > 0
    assert "scene-2.png" in done.stdout


@pytest.mark.parametrize("page", ["README.md", "docs/performance.md"])
def test_tables_are_those_of_the_results_files(page: str) -> None:
    assert "<!-- results: " in (ROOT / page).read_text(encoding="utf-8")
    assert updated(ROOT / page) == (ROOT / page).read_text(encoding="utf-8")
