"""The page in headless Chromium, against a real server of sed-tiny: what it does."""

import io
import json
from pathlib import Path
from urllib.request import Request, urlopen

import numpy as np
from PIL import Image
from playwright.sync_api import BrowserContext, Page, Route, expect

from sed_trt.benchmarks.report.screenshot import PATIENCE_MS
from sed_trt.runtime.result import colours
from sed_trt.tests.paths import ROOT
from sed_trt.tests.serve.page.browsing import (
    NAMES,
    SCENE,
    VEIL,
    choose,
    labels_from,
    name,
    pixel,
    point_of,
    position,
    requests_of,
    segment,
    transfer,
)

expect.set_options(timeout=PATIENCE_MS)


def test_a_dropped_image_is_coloured_as_the_server_labels_it(page: Page, url: str) -> None:
    name(page)
    dropped = transfer(page, SCENE.read_bytes(), "dropped.png", "image/png")
    page.locator("#drop").dispatch_event("drop", {"dataTransfer": dropped})
    expect(page.locator("#overlay")).to_be_visible()
    expect(page.locator("#file-name")).to_have_text("dropped.png")
    labels = labels_from(url)
    table = colours(len(NAMES))
    for index in np.unique(labels):
        point = point_of(labels, index)
        assert pixel(page, point) == [*table[index].tolist(), 255]


def test_a_pasted_image_is_segmented(page: Page) -> None:
    name(page)
    pasted = transfer(page, SCENE.read_bytes(), "image.png", "image/png")
    paste = "(data) => document.dispatchEvent(new ClipboardEvent('paste', { clipboardData: data }))"
    page.evaluate(paste, pasted)
    expect(page.locator("#overlay")).to_be_visible()


def test_an_example_brings_its_categories(page: Page) -> None:
    page.get_by_role("button", name="Example scene-1.png").click()
    expect(page.locator("#overlay")).to_be_visible()
    expect(page.locator("#category-count")).to_have_text("181")
    expect(page.locator("#legend button").first).to_contain_text("%")


def test_a_list_that_the_server_knows_replaces_the_categories(page: Page, url: str) -> None:
    body = json.dumps(["sky", "tree, trees"]).encode()
    registered = Request(
        f"{url}/v1/vocabularies/mine", body, {"Content-Type": "application/json"}, method="PUT"
    )
    with urlopen(registered) as answer:
        assert answer.status == 201
    page.reload()
    lists = page.get_by_role("combobox", name="Take a list")
    lists.select_option("voc20")
    expect(page.locator("#category-count")).to_have_text("20")
    lists.select_option("mine")
    expect(page.locator("#chip-list .chip-name")).to_have_text(["sky", "tree, trees"])


def test_typed_categories_become_chips(page: Page) -> None:
    entry = page.locator("#entry")
    chips = page.locator("#chip-list .chip-name")
    entry.press_sequentially('sky,tree | trees,"road, street",')
    expect(chips).to_have_text(["sky", "tree, trees", "road, street"])
    entry.press_sequentially("car")
    entry.press("Enter")
    expect(chips).to_have_count(4)
    # A second one of the same name is refused, and said to be there.
    entry.press_sequentially("Sky,")
    expect(chips).to_have_count(4)
    expect(page.get_by_role("status")).to_contain_text("there already")
    entry.press("Backspace")
    expect(chips).to_have_count(3)
    page.get_by_role("button", name="Remove sky").click()
    expect(chips).to_have_text(["tree, trees", "road, street"])
    page.get_by_role("button", name="Clear").click()
    expect(chips).to_have_count(0)


def test_hovering_names_the_category_and_clicking_isolates_it(page: Page, url: str) -> None:
    segment(page)
    labels = labels_from(url)
    stage = page.locator("#stage")
    index = int(np.bincount(labels.ravel()).argmax())
    other = int(np.bincount(labels.ravel()).argsort()[-2])
    for each in (index, other):
        stage.hover(position=position(stage, point_of(labels, each)))
        expect(page.locator("#tag")).to_contain_text(NAMES[each])
        expect(page.locator("#tag")).to_contain_text("%")
    stage.click(position=position(stage, point_of(labels, index)))
    pressed = page.locator('#legend button[aria-pressed="true"]')
    expect(pressed).to_contain_text(NAMES[index])
    # The category itself is bare, the others are covered alike.
    assert pixel(page, point_of(labels, index))[3] == 0
    assert pixel(page, point_of(labels, other)) == VEIL
    stage.click(position=position(stage, point_of(labels, index)))
    expect(pressed).to_have_count(0)
    assert pixel(page, point_of(labels, other)) == [*colours(len(NAMES))[other].tolist(), 255]


def test_the_legend_shows_shares_and_isolates(page: Page, url: str) -> None:
    segment(page)
    labels = labels_from(url)
    counts = np.bincount(labels.ravel(), minlength=len(NAMES))
    order = [index for index in np.argsort(-counts, kind="stable") if counts[index]]
    shares = [f"{NAMES[index]}{100 * counts[index] / labels.size:.1f} %" for index in order]
    expect(page.locator("#legend button")).to_have_text(shares)
    page.locator("#legend button").nth(1).click()
    assert pixel(page, point_of(labels, order[0])) == VEIL
    page.get_by_role("button", name="Show all").click()
    expect(page.locator('#legend button[aria-pressed="true"]')).to_have_count(0)


def test_the_slider_changes_how_strong_the_colours_are(page: Page) -> None:
    segment(page)
    slider = page.get_by_role("slider", name="Colours")
    overlay = page.locator("#overlay")
    expect(overlay).to_have_css("opacity", "0.6")
    slider.press("End")
    expect(overlay).to_have_css("opacity", "1")
    slider.press("Home")
    expect(overlay).to_have_css("opacity", "0")


def test_other_categories_send_no_image_again(page: Page) -> None:
    images, segments = requests_of(page, "/v1/images"), requests_of(page, "/v1/segment")
    segment(page)
    name(page, "sun")
    expect(page.get_by_role("status")).to_contain_text(f"of {len(NAMES) + 1} categories")
    page.get_by_role("button", name="Remove sky").click()
    expect(page.get_by_role("status")).to_contain_text(f"of {len(NAMES)} categories")
    assert len(images) == 1 and len(segments) == 3
    assert json.loads(segments[-1])["categories"] == [*NAMES[1:], "sun"]


def test_an_image_that_the_server_has_forgotten_is_sent_again(page: Page, url: str) -> None:
    segments, images = requests_of(page, "/v1/segment"), requests_of(page, "/v1/images")
    segment(page)
    kept = json.loads(segments[0])["image_id"]
    with urlopen(Request(f"{url}/v1/images/{kept}", method="DELETE")) as answer:
        assert answer.status == 204
    name(page, "sun")
    expect(page.get_by_role("status")).to_contain_text(f"of {len(NAMES) + 1} categories")
    assert len(images) == 2


def test_a_request_that_is_no_longer_wanted_is_aborted(page: Page) -> None:
    segment(page)
    failed: list[str] = []
    page.on("requestfailed", lambda request: failed.append(f"{request.url} {request.failure}"))
    held: list[Route] = []
    page.route("**/v1/segment", lambda route: held.append(route), times=1)
    name(page, "sun")
    while not held:
        page.wait_for_timeout(10)
    name(page, "moon")
    expect(page.get_by_role("status")).to_contain_text(f"of {len(NAMES) + 2} categories")
    assert len(failed) == 1 and "/v1/segment" in failed[0]


def test_what_can_be_saved(page: Page, url: str) -> None:
    segment(page)
    saved: dict[str, bytes] = {}
    for button in ("PNG", "JSON", "Overlay"):
        with page.expect_download() as download:
            page.get_by_role("group", name="Download").get_by_role("button", name=button).click()
        saved[download.value.suggested_filename] = Path(download.value.path()).read_bytes()
    assert set(saved) == {"scene-1.labels.png", "scene-1.json", "scene-1.overlay.png"}
    labels = labels_from(url)
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(saved["scene-1.labels.png"]))), labels)
    content = json.loads(saved["scene-1.json"])
    assert content["image"] == "scene-1.png" and content["names"] == list(NAMES)
    assert sum(entry["pixels"] for entry in content["categories"]) == labels.size
    assert "labels" not in content
    overlay = np.asarray(Image.open(io.BytesIO(saved["scene-1.overlay.png"])).convert("RGB")).astype(int)
    expected = 0.4 * np.asarray(Image.open(SCENE).convert("RGB")) + 0.6 * colours(len(NAMES))[labels]
    assert np.abs(overlay - expected).max() <= 2


def test_a_file_that_is_no_image_is_refused_in_one_line(page: Page, tmp_path: Path) -> None:
    bad = tmp_path / "notes.png"
    bad.write_text("this is text")
    name(page)
    choose(page, bad)
    alert = page.get_by_role("alert")
    expect(alert).to_be_visible()
    expect(alert).to_contain_text("no image of a known format")
    expect(page.locator("#stage")).to_be_hidden()
    # The server would refuse it again.
    expect(alert.get_by_role("button", name="Try again")).to_be_hidden()
    # The next image is taken as if nothing had happened.
    choose(page)
    expect(page.locator("#overlay")).to_be_visible()
    expect(alert).to_be_hidden()


def test_a_refused_category_costs_no_second_upload(page: Page) -> None:
    images = requests_of(page, "/v1/images")
    segment(page)
    name(page, "x" * 1001)
    expect(page.get_by_role("alert")).to_contain_text("1001 characters")
    page.locator("#entry").press("Backspace")
    expect(page.get_by_role("status")).to_contain_text(f"of {len(NAMES)} categories")
    assert len(images) == 1


def test_a_server_that_is_gone_can_be_tried_again(page: Page) -> None:
    segment(page)
    page.route("**/v1/**", lambda route: route.abort("connectionrefused"))
    name(page, "sun")
    alert = page.get_by_role("alert")
    expect(alert).to_contain_text("cannot be reached")
    page.unroute("**/v1/**")
    alert.get_by_role("button", name="Try again").click()
    expect(page.get_by_role("status")).to_contain_text(f"of {len(NAMES) + 1} categories")
    expect(alert).to_be_hidden()


def test_a_server_that_was_gone_at_the_start_can_be_tried_again(page: Page) -> None:
    page.route("**/v1/**", lambda route: route.abort("connectionrefused"))
    page.reload()
    alert = page.get_by_role("alert")
    expect(alert).to_contain_text("cannot be reached")
    name(page)
    choose(page)
    expect(alert).to_contain_text("cannot be reached")
    page.unroute("**/v1/**")
    alert.get_by_role("button", name="Try again").click()
    expect(page.locator("#overlay")).to_be_visible()
    expect(page.get_by_role("button", name="Example scene-1.png")).to_be_visible()


def test_a_busy_server_is_asked_again_later(page: Page) -> None:
    segment(page)
    busy = {"status": 429, "headers": {"Retry-After": "1"}, "json": {"error": "the queue is full"}}
    page.route("**/v1/segment", lambda route: route.fulfill(**busy), times=1)
    name(page, "sun")
    expect(page.get_by_role("status")).to_contain_text("The server is busy; trying again in 1 s.")
    expect(page.get_by_role("status")).to_contain_text(f"of {len(NAMES) + 1} categories")


def test_a_server_that_stays_busy_is_an_error(page: Page) -> None:
    busy = {"status": 429, "headers": {"Retry-After": "0"}, "json": {"error": "the queue is full"}}
    page.route("**/v1/images*", lambda route: route.fulfill(**busy))
    name(page)
    choose(page)
    alert = page.get_by_role("alert")
    expect(alert).to_contain_text("the queue is full")
    page.unroute("**/v1/images*")
    alert.get_by_role("button", name="Try again").click()
    expect(page.locator("#overlay")).to_be_visible()


def test_a_key_is_asked_for_and_kept_in_the_tab(page: Page, url: str) -> None:
    def check(route: Route) -> None:
        if route.request.headers.get("x-api-key") == "secret":
            route.continue_()
        else:
            route.fulfill(status=401, json={"error": "this server asks for an API key"})

    page.route("**/v1/**", check)
    page.reload()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("API key").fill("secret")
    dialog.get_by_role("button", name="Use it").click()
    expect(page.get_by_role("button", name="Example scene-1.png")).to_be_visible()
    page.reload()
    expect(page.get_by_role("button", name="Example scene-1.png")).to_be_visible()
    expect(dialog).to_be_hidden()


def test_two_tabs_do_not_disturb_each_other(page: Page, context: BrowserContext, url: str) -> None:
    other = context.new_page()
    other.goto(url)
    name(page)
    name(other, "sky, brick wall")
    choose(page)
    choose(other, ROOT / "examples" / "scene-2.png")
    expect(page.get_by_role("status")).to_contain_text(f"of {len(NAMES)} categories")
    expect(other.get_by_role("status")).to_contain_text("of 2 categories")
    name(page, "sun")
    name(other, "moon")
    expect(page.get_by_role("status")).to_contain_text(f"of {len(NAMES) + 1} categories")
    expect(other.get_by_role("status")).to_contain_text("of 3 categories")
