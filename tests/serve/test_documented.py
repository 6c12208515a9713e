"""The examples of docs/serving.md run against a server as it describes them."""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from sed_trt.tests.fakes.server import serving
from sed_trt.tests.paths import ROOT

PAGE = (ROOT / "docs" / "serving.md").read_text(encoding="utf-8")
ADDRESS = "127.0.0.1:8000"


def blocks(language: str) -> list[str]:
    """The page's fenced blocks of one language."""
    return re.findall(rf"```{language}\n(.*?)```", PAGE, flags=re.DOTALL)


CURL = [line for block in blocks("bash") for line in block.splitlines() if line.startswith("curl ")]


@pytest.fixture(scope="module")
def address(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Host and port of a server whose bundle is named as on the page."""
    folder = tmp_path_factory.mktemp("documented")
    (folder / "bundle").symlink_to(tiny_bundle)
    with serving([str(folder / "bundle")], folder) as url:
        yield url.removeprefix("http://")


def run(command: list[str], folder: Path) -> str:
    """What a command prints; it must succeed."""
    (folder / "examples").symlink_to(ROOT / "examples")
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("code", blocks("python"))
def test_python_examples_run(code: str, address: str, tmp_path: Path) -> None:
    assert ADDRESS in code
    assert run([sys.executable, "-c", code.replace(ADDRESS, address)], tmp_path).strip()


@pytest.mark.parametrize("command", CURL)
def test_curl_examples_run(command: str, address: str, tmp_path: Path) -> None:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    assert ADDRESS in command
    changed = command.replace(ADDRESS, address).replace("curl ", "curl --fail-with-body --silent ", 1)
    printed = run(["bash", "-c", changed], tmp_path)
    if "-o labels.png" in command:
        assert Image.open(tmp_path / "labels.png").mode == "L"
    else:
        assert '"categories"' in printed
