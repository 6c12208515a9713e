"""The page in headless Chromium: its policy, its parsers, keyboard, narrow windows, light and dark."""

import base64
import io
import re
from typing import Any
from urllib.request import urlopen

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Locator, Page, ViewportSize, expect

from sed_trt.benchmarks.report.screenshot import PATIENCE_MS
from sed_trt.runtime import parse_names
from sed_trt.tests.paths import ROOT
from sed_trt.tests.serve.page.browsing import NAMES, labels_from, name, segment

expect.set_options(timeout=PATIENCE_MS)

NARROW: ViewportSize = {"width": 360, "height": 740}


def test_the_policy_allows_nothing_inline_and_nothing_from_elsewhere(url: str) -> None:
    with urlopen(url) as answer:
        policy = answer.headers["Content-Security-Policy"]
        html = answer.read().decode()
    assert "default-src 'self'" in policy and "unsafe" not in policy
    assert "style=" not in html and "onclick" not in html and "<style" not in html
    for file in (ROOT / "serve" / "page").iterdir():
        addresses = re.findall(r"https?://[^\x27\"\s]+", file.read_text(encoding="utf-8"))
        assert set(addresses) <= {"http://www.w3.org/2000/svg"}, file


@pytest.mark.parametrize(
    "text", ["sky, tree, car", "sky; tree, trees; car", "sky\ntree, trees\n\n car ;", "", "one"]
)
def test_names_are_read_as_on_the_command_line(page: Page, text: str) -> None:
    script = """async (text) => (await import("./page/chips.js")).parseNames(text)"""
    assert page.evaluate(script, text) == parse_names(text)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_label_maps_are_decoded_exactly(page: Page, dtype: type) -> None:
    random = np.random.default_rng(0)
    # Smooth and noisy parts, so that the encoder chooses all filters.
    values: np.ndarray = (np.add.outer(np.arange(61), np.arange(83)) * 37 % np.iinfo(dtype).max).astype(dtype)
    values[30:] = random.integers(0, np.iinfo(dtype).max, (31, 83), dtype=dtype, endpoint=True)
    file = io.BytesIO()
    Image.fromarray(values).save(file, format="PNG")
    script = """async (data) => {
        const { bytesOf, decodeGreyPng } = await import("./page/maps.js");
        const { width, height, values } = await decodeGreyPng(bytesOf(data));
        return [width, height, [...values]];
    }"""
    width, height, decoded = page.evaluate(script, base64.b64encode(file.getvalue()).decode())
    assert (height, width) == values.shape
    np.testing.assert_array_equal(np.reshape(decoded, values.shape), values)


def test_everything_can_be_done_with_the_keyboard(page: Page, url: str) -> None:
    expect(page.get_by_role("button", name="Example scene-1.png")).to_be_visible()
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the categories")).to_be_focused()
    page.keyboard.press("Enter")
    page.keyboard.type(", ".join(NAMES))
    page.keyboard.press("Enter")
    # Chips are reached with the arrow keys.
    page.keyboard.press("ArrowLeft")
    expect(page.get_by_role("button", name=f"Remove {NAMES[-1]}")).to_be_focused()
    page.keyboard.press("ArrowRight")
    expect(page.locator("#entry")).to_be_focused()
    for _ in range(5):
        page.keyboard.press("Shift+Tab")
    expect(page.get_by_role("button", name="Example scene-1.png")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#overlay")).to_be_visible()
    for _ in range(4):
        page.keyboard.press("Tab")
    expect(page.locator("#stage")).to_be_focused()
    labels = labels_from(url)
    page.keyboard.press("ArrowUp")
    middle = labels[int(0.46 * labels.shape[0]), labels.shape[1] // 2]
    expect(page.get_by_role("status")).to_contain_text(NAMES[middle])
    page.keyboard.press("Enter")
    expect(page.locator('#legend button[aria-pressed="true"]')).to_contain_text(NAMES[middle])
    page.keyboard.press("Escape")
    expect(page.locator('#legend button[aria-pressed="true"]')).to_have_count(0)
    page.locator("#legend button").first.focus()
    page.keyboard.press("Space")
    expect(page.locator('#legend button[aria-pressed="true"]')).to_have_count(1)


def focus_is_visible(element: Locator) -> bool:
    return element.evaluate("(element) => getComputedStyle(element).outlineStyle !== 'none'")


def test_focus_can_be_seen(page: Page) -> None:
    segment(page)
    for selector in ("#stage", "#opacity", "#legend button", "#download-json", "#lists", "#clear"):
        page.locator(selector).first.focus()
        page.keyboard.press("Shift")
        assert focus_is_visible(page.locator(selector).first), selector


def test_a_narrow_window_has_nothing_to_scroll_sideways(page: Page) -> None:
    page.set_viewport_size(NARROW)
    fits = "document.documentElement.scrollWidth <= window.innerWidth"
    assert page.evaluate(fits)
    segment(page)
    name(
        page,
        "a category with a rather long name of many words, donaudampfschifffahrtsgesellschaftskapitän"
        + "e" * 60,
    )
    expect(page.get_by_role("status")).to_contain_text("categories")
    page.get_by_text("Settings").click()
    assert page.evaluate(fits)
    page.route("**/v1/segment", lambda route: route.fulfill(status=500, json={"error": "x" * 200}))
    name(page, "sun")
    expect(page.get_by_role("alert")).to_be_visible()
    assert page.evaluate(fits)


def luminance(colour: str) -> float:
    """Relative luminance as WCAG defines it, of "rgb(r, g, b)"."""
    channels = [float(part) / 255 for part in colour[colour.index("(") + 1 : -1].split(",")[:3]]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


CONTRASTED = (
    "header p",
    ".hint",
    "#status",
    "#legend .share",
    "#legend .name",
    ".times li",
    "footer p",
    "h3",
    "summary",
    ".quiet",
    "code",
)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_is_readable_in_both_schemes(page: Page, scheme: Any) -> None:
    page.emulate_media(color_scheme=scheme)
    segment(page)
    script = """(element) => {
        let below = element;
        while (getComputedStyle(below).backgroundColor === "rgba(0, 0, 0, 0)") below = below.parentElement;
        return [getComputedStyle(element).color, getComputedStyle(below).backgroundColor];
    }"""
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (luminance(ground) < 0.1) == (scheme == "dark")
    for selector in CONTRASTED:
        lighter, darker = sorted(map(luminance, page.locator(selector).first.evaluate(script)), reverse=True)
        assert (lighter + 0.05) / (darker + 0.05) >= 4.5, selector
