"""What tests of the page share: names, files, and what they do with it and read from it."""

import base64
import io
import json
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from urllib.request import Request, urlopen

import numpy as np
from PIL import Image
from playwright.sync_api import Locator, Page

from sed_trt.tests.paths import ROOT

SCENE = ROOT / "examples" / "scene-1.png"
NAMES = ("sky", "grass", "snow", "black car", "yellow hat", "purple house")
# What covers the categories beside the one that is isolated: red, green, blue, opacity.
VEIL = [12, 14, 18, 255]


def choose(page: Page, file: Path = SCENE) -> None:
    """Choose a file with the button."""
    page.locator("#file").set_input_files(file)


def name(page: Page, text: str = ", ".join(NAMES)) -> None:
    """Type categories and Enter."""
    page.locator("#entry").fill(text)
    page.locator("#entry").press("Enter")


def segment(page: Page, file: Path = SCENE) -> None:
    """Names and an image; waits for the colours of the answer."""
    name(page)
    choose(page, file)
    page.locator("#overlay:visible").wait_for()


def labels_from(url: str, file: Path = SCENE, names: tuple[str, ...] = NAMES) -> np.ndarray:
    """The label map that the server gives to a program."""
    query = urlencode({"categories": json.dumps(names)})
    headers = {"Content-Type": "image/png", "Accept": "image/png"}
    with urlopen(Request(f"{url}/v1/segment?{query}", file.read_bytes(), headers)) as answer:
        return np.asarray(Image.open(io.BytesIO(answer.read())))


def point_of(labels: np.ndarray, index: int) -> tuple[float, float]:
    """Fractions across and down of a pixel well inside a category."""
    inside = labels == index
    while True:
        padded = np.pad(inside, 1)
        smaller = inside & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
        if not smaller.any():
            break
        inside = smaller
    row, column = np.argwhere(inside)[0]
    return (column + 0.5) / labels.shape[1], (row + 0.5) / labels.shape[0]


def position(stage: Locator, point: tuple[float, float]) -> Any:
    """A place on the stage for the mouse."""
    box = stage.bounding_box()
    assert box is not None
    return {"x": point[0] * box["width"], "y": point[1] * box["height"]}


def transfer(page: Page, content: bytes, file_name: str, kind: str) -> Any:
    """What the browser hands over when a file is dropped or pasted."""
    script = """([data, name, type]) => {
        const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
        const transfer = new DataTransfer();
        transfer.items.add(new File([bytes], name, { type }));
        return transfer;
    }"""
    return page.evaluate_handle(script, [base64.b64encode(content).decode(), file_name, kind])


def requests_of(page: Page, path: str) -> list[str]:
    """Those posted to a path from now on, as they come."""
    seen: list[str] = []

    def note(request: Any) -> None:
        if request.method == "POST" and path in request.url:
            seen.append(request.post_data or "" if path.endswith("segment") else request.url)

    page.on("request", note)
    return seen


def pixel(page: Page, point: tuple[float, float]) -> list[int]:
    """Red, green, blue and opacity of the colours at a place."""
    script = """([x, y]) => {
        const canvas = document.getElementById("overlay");
        const at = [Math.floor(x * canvas.width), Math.floor(y * canvas.height)];
        return [...canvas.getContext("2d").getImageData(...at, 1, 1).data];
    }"""
    return page.evaluate(script, point)
