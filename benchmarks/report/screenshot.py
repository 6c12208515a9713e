"""The picture of the page in the README, taken from a running server in headless Chromium.

python -m sed_trt.benchmarks.report.screenshot http://127.0.0.1:8000 docs/page.png
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ...files import replacing

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page, ViewportSize

# Debian's; playwright downloads no browser of its own.
CHROMIUM = Path("/usr/bin/chromium")
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
SIZE: "ViewportSize" = {"width": 1180, "height": 860}
PATIENCE_MS = 60_000
CATEGORIES = "sky, grass, snow, mountain | hills, black car, yellow hat, purple house, blue flower"


@contextmanager
def browser() -> "Iterator[Browser]":
    """Headless Chromium with a new, empty profile, which is removed at the end."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, headless=True, args=FLAGS)
        try:
            yield chromium
        finally:
            chromium.close()


def segment_example(page: "Page", url: str, categories: str = CATEGORIES) -> None:
    """Open the page, name categories, choose the first example and wait for its colours."""
    page.goto(url)
    page.locator("#entry").fill(categories)
    page.keyboard.press("Enter")
    page.locator("#examples button").first.click()
    page.locator("#overlay:visible").wait_for(timeout=PATIENCE_MS)


def take(url: str, file: Path) -> None:
    """Write a picture of the page with the first example segmented."""
    with browser() as chromium:
        page = chromium.new_page(viewport=SIZE)
        segment_example(page, url)
        page.locator("#stage").hover(position={"x": 200, "y": 420})
        with replacing(file) as temporary:
            page.screenshot(path=temporary)


if __name__ == "__main__":
    take(sys.argv[1], Path(sys.argv[2]))
