"""The browser and the server that tests of the page use."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sed_trt.benchmarks.report.screenshot import CHROMIUM, PATIENCE_MS, browser
from sed_trt.tests.fakes.server import serving
from sed_trt.tests.paths import ROOT

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Request

# How Chromium itself tells of an answer that is an error.
NETWORK_ERROR = "Failed to load resource"


@pytest.fixture(scope="package")
def url(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a server of sed-tiny with the shipped examples."""
    arguments = [str(tiny_bundle), "--examples", str(ROOT / "examples")]
    with serving(arguments, tmp_path_factory.mktemp("served")) as address:
        yield address


@pytest.fixture(scope="package")
def chromium() -> "Iterator[Browser]":
    """A browser; tests that need one are skipped where it is not installed."""
    if not CHROMIUM.exists():
        pytest.skip(f"{CHROMIUM} is not installed: apt-get install chromium")
    with browser() as running:
        yield running


@pytest.fixture
def context(chromium: "Browser") -> "Iterator[BrowserContext]":
    """A profile of its own for each test."""
    opened = chromium.new_context(viewport={"width": 1180, "height": 860})
    opened.set_default_timeout(PATIENCE_MS)
    yield opened
    opened.close()


@pytest.fixture
def page(context: "BrowserContext", url: str) -> "Iterator[Page]":
    """The opened page; failing scripts, what the policy blocks and requests to elsewhere fail the test."""
    opened = context.new_page()
    complaints: list[str] = []

    def note(message: "ConsoleMessage") -> None:
        if message.type == "error":
            complaints.append(message.text)

    def check(request: "Request") -> None:
        if not request.url.startswith((url, "blob:", "data:")):
            complaints.append(f"asks for {request.url}")

    opened.on("request", check)
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    opened.on("console", note)
    opened.goto(url)
    yield opened
    assert [each for each in complaints if NETWORK_ERROR not in each] == []
