"""`/v1/segment` and `/v1/images`: answers equal those of the segmenter, whatever way a request is written."""

import base64
import json
from io import BytesIO
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image
from pycocotools import mask

from sed_trt.runtime import KeepAll, Segmenter
from sed_trt.runtime.result import colours
from sed_trt.tests.fakes.engines import COLOURS, quarters
from sed_trt.tests.fakes.images import pixels_of, png_bytes
from sed_trt.tests.fakes.results import scores_of
from sed_trt.tests.serve.conftest import Client, Serving

NAMES = ["sky", "grass", "brick wall", "red car", "tree, trees", "boat"]
PNG = {"Content-Type": "image/png"}


def picture(content: dict[str, str]) -> np.ndarray:
    """The pixels of an image in an answer."""
    assert content["encoding"] == "png"
    return pixels_of(base64.b64decode(content["data"]))


def answered(response: httpx.Response, status: int = 200) -> Any:
    """The JSON of an answer with this status."""
    assert response.status_code == status, response.text
    return response.json()


@pytest.fixture
def colours_file() -> bytes:
    """A PNG file with a red, green, blue and white quarter."""
    return png_bytes(quarters())


def test_all_outputs_equal_those_of_the_segmenter(
    tiny: httpx.Client, tiny_segmenter: Segmenter, photo: np.ndarray, photo_file: bytes
) -> None:
    expected = tiny_segmenter(photo, NAMES, KeepAll(), short_side=200)
    fields = {
        "categories": json.dumps(NAMES),
        "rejection": "none",
        "short_side": "200",
        "output": "labels,rle,overlay,scores",
    }
    answer = answered(tiny.post("/v1/segment", data=fields, files={"image": photo_file}))
    labels = picture(answer["labels"])
    assert labels.dtype == np.uint8
    assert np.array_equal(labels, expected.labels)
    assert np.array_equal(picture(answer["overlay"]), np.asarray(expected.overlay()))
    assert np.abs(picture(answer["scores"]) / 255 - scores_of(expected)).max() < 0.01
    assert (answer["bundle"], answer["width"], answer["height"]) == ("tiny", 130, 90)
    assert answer["names"] == NAMES
    assert answer["kept"] == list(expected.kept)
    assert list(answer["timings_ms"]) == list(expected.timings)
    assert answer["queue_ms"] >= 0
    assert [entry["index"] for entry in answer["rle"]] == sorted(expected.pixel_counts)
    for entry in answer["rle"]:
        assert entry["size"] == [90, 130]
        decoded = mask.decode({"size": entry["size"], "counts": entry["counts"]})
        assert np.array_equal(decoded.astype(bool), expected.labels == entry["index"])
    assert {entry["index"]: entry["pixels"] for entry in answer["categories"]} == expected.pixel_counts
    table = colours(len(NAMES))
    for entry in answer["categories"]:
        assert entry["name"] == NAMES[entry["index"]]
        assert entry["share"] == pytest.approx(entry["pixels"] / (90 * 130))
        assert entry["colour"] == f"#{table[entry['index']].tobytes().hex()}"


def test_a_kept_image_gives_what_the_file_gives(tiny: httpx.Client, photo_file: bytes) -> None:
    direct = answered(
        tiny.post("/v1/segment", files={"image": photo_file}, data={"categories": json.dumps(NAMES)})
    )
    kept = answered(tiny.post("/v1/images", content=photo_file, headers=PNG), 201)
    assert (kept["width"], kept["height"], kept["bundle"], kept["expires_in_s"]) == (130, 90, "tiny", 900)
    assert {"load", "image"} <= kept["timings_ms"].keys()
    answer = answered(tiny.post("/v1/segment", json={"image_id": kept["image"], "categories": NAMES}))
    assert answer["labels"] == direct["labels"]


def test_every_way_to_write_a_request_gives_the_same(client: Client, colours_file: bytes) -> None:
    text = "white; blue; green; red"
    names = ["white", "blue", "green", "red"]
    query = {"categories": text, "short_side": "0"}
    requests: list[dict[str, Any]] = [
        {"files": {"image": colours_file}, "data": query},
        {"files": {"image": colours_file}, "data": {"short_side": "0"}, "params": {"categories": text}},
        {"files": {"image": colours_file}, "data": {"categories": json.dumps(names), "short_side": "0"}},
        {"content": colours_file, "headers": PNG, "params": query},
        {"content": colours_file, "params": query},
        {"content": colours_file, "headers": {"Content-Type": "application/octet-stream"}, "params": query},
        {
            "json": {
                "image": base64.b64encode(colours_file).decode(),
                "categories": names,
                "short_side": 0,
                "output": ["labels"],
            }
        },
    ]
    answers = [answered(client.post("/v1/segment", **request)) for request in requests]
    expected = np.zeros((40, 60), dtype=np.uint8)
    expected[:20, :30], expected[:20, 30:], expected[20:, :30] = 3, 2, 1
    for answer in answers:
        assert np.array_equal(picture(answer["labels"]), expected)
        assert answer.keys() & {"rle", "overlay", "scores"} == set()


def test_a_label_map_alone(client: Client, colours_file: bytes) -> None:
    query = {"categories": "red, green, blue, white", "short_side": "0"}
    headers = PNG | {"Accept": "image/png"}
    response = client.post("/v1/segment", content=colours_file, headers=headers, params=query)
    assert response.headers["Content-Type"] == "image/png"
    assert sorted(set(pixels_of(response.content).ravel())) == [0, 1, 2, 3]
    summary = json.loads(response.headers["X-Sed-Trt-Summary"])
    assert [entry["pixels"] for entry in summary["categories"]] == [600, 600, 600, 600]


def test_many_categories_take_16_bits_and_no_header(client: Client, colours_file: bytes) -> None:
    # To the stages in numpy the first grey is as white as the last name.
    names = [*(f"grey {number}" for number in range(600)), *COLOURS]
    body = {"image": base64.b64encode(colours_file).decode(), "categories": names, "short_side": 0}
    labels = picture(answered(client.post("/v1/segment", json=body))["labels"])
    assert labels.dtype == np.uint16
    assert sorted(set(labels.ravel().tolist())) == [0, 600, 601, 602]
    response = client.post("/v1/segment", json=body, headers={"Accept": "image/png"})
    assert np.array_equal(pixels_of(response.content), labels)
    assert "X-Sed-Trt-Summary" not in response.headers


def test_changing_categories_encodes_nothing_again(client: Client, colours_file: bytes) -> None:
    kept = answered(client.post("/v1/images", files={"image": colours_file}), 201)["image"]
    for names in (["red", "blue"], ["green", "white"], ["white"]):
        answered(client.post("/v1/segment", json={"image_id": kept, "categories": names}))
    assert len(client.stage("image").shapes) == 1
    assert len(client.stage("scout").shapes) == 3
    assert client.delete(f"/v1/images/{kept}").status_code == 204
    assert client.delete(f"/v1/images/{kept}").status_code == 404
    line = answered(client.post("/v1/segment", json={"image_id": kept, "categories": ["red"]}), 404)["error"]
    assert "post the image again" in line


def test_transparent_and_rotated_images_are_read_as_elsewhere(
    tiny: httpx.Client, tiny_segmenter: Segmenter, photo: np.ndarray
) -> None:
    image = Image.fromarray(photo)
    exif = image.getexif()
    exif[0x0112] = 6
    file = BytesIO()
    image.save(file, format="PNG", exif=exif)
    answer = answered(tiny.post("/v1/segment", content=file.getvalue(), params={"categories": "sky, tree"}))
    assert (answer["width"], answer["height"]) == (90, 130)
    expected = tiny_segmenter(np.rot90(photo, -1).copy(), ["sky", "tree"])
    assert np.array_equal(picture(answer["labels"]), expected.labels)


def test_bundles_are_chosen_by_name(serving: Serving, colours_file: bytes) -> None:
    with serving() as client:
        query = {"categories": "red", "bundle": "colours"}
        assert answered(client.post("/v1/segment", content=colours_file, params=query))["bundle"] == "colours"
        query["bundle"] = "other"
        line = answered(client.post("/v1/segment", content=colours_file, params=query), 404)["error"]
        assert line == "bundle: 'other' is not served; choose one of colours"


def test_small_bounds_keep_no_image(serving: Serving, colours_file: bytes) -> None:
    with serving(images_kept=0) as client:
        line = answered(client.post("/v1/images", content=colours_file), 413)["error"]
        assert "too large to be kept" in line
