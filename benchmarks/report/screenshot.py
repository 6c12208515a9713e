"""The picture of the page in the README, taken from a running server in headless Chromium.

python -m sed_trt.benchmarks.report.screenshot http://127.0.0.1:8000 docs/page.png
"""

import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

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
SIZE: "ViewportSize" = {"width": 1120, "height": 860}
PATIENCE_MS = 60_000


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


def segment_example(page: "Page", url: str) -> None:
    """Open the page, choose the last example, which brings its categories, and wait for the colours."""
    page.goto(url)
    page.locator("#examples button").last.click()
    page.locator("#overlay:visible").wait_for(timeout=PATIENCE_MS)


def take(url: str, file: Path) -> None:
    """Write a picture of the page with the last example segmented, in 256 colours to keep it small."""
    with browser() as chromium:
        page = chromium.new_page(viewport=SIZE)
        segment_example(page, url)
        box = page.locator("#stage").bounding_box()
        assert box is not None
        page.locator("#stage").hover(position={"x": 0.4 * box["width"], "y": 0.6 * box["height"]})
        shown = Image.open(io.BytesIO(page.screenshot(full_page=True)))
    with replacing(file) as temporary:
        shown.convert("RGB").quantize(256).save(temporary, format="PNG", optimize=True)


if __name__ == "__main__":
    take(sys.argv[1], Path(sys.argv[2]))
