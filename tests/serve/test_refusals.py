"""Requests that are refused: the status, one clear line, and nothing of the server's paths."""

import base64
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sed_trt.errors import InputError
from sed_trt.tests.fakes.engines import quarters
from sed_trt.tests.fakes.images import png_bytes
from sed_trt.tests.serve.conftest import Client, Serving

IMAGE = png_bytes(quarters())
LARGE = png_bytes(np.zeros((101, 100), dtype=np.uint8))
NAMES = {"categories": "red, blue"}
TEXT = base64.b64encode(IMAGE).decode()
FIVE = {"categories": "a, b, c, d, e"}
TYPE = "Content-Type"


@pytest.fixture(scope="module")
def narrow(serving: Serving) -> Iterator[Client]:
    """A server with narrow limits."""
    with serving(max_bytes=5000, max_pixels=10_000, max_categories=4, max_kept=3) as client:
        yield client


@pytest.fixture
def strict(narrow: Client) -> Client:
    """The same, whose stages did nothing yet."""
    narrow.forget_runs()
    return narrow


def refusal(client: Client, status: int, path: str = "/v1/segment", **request: Any) -> str:
    """The line of a request that must be refused with this status."""
    response = client.post(path, **request)
    assert response.status_code == status, response.text
    assert list(response.json()) == ["error"]
    line: str = response.json()["error"]
    assert "\n" not in line
    assert str(client.server.service.owner(None).segmenter.bundle.path.parent) not in line
    return line


@pytest.mark.parametrize(
    ("status", "expected", "request_"),
    [
        (413, "longer than 5000 bytes", {"content": bytes(5001)}),
        (413, "longer than 5000 bytes", {"content": iter([bytes(3000), bytes(3000)])}),
        (413, "101 is over 10000 pixels", {"content": LARGE, "params": NAMES}),
        (413, "5 are given, the most that is taken is 4", {"content": IMAGE, "params": FIVE}),
        (413, "150 are given", {"content": IMAGE, "params": {"vocabulary": "ade150"}}),
        (415, "its type is 'text/plain'", {"content": IMAGE, "headers": {TYPE: "text/plain"}}),
        (415, "content encoding is 'gzip'", {"content": IMAGE, "headers": {"Content-Encoding": "gzip"}}),
        (415, "are no image of a known format", {"content": b"no image", "params": NAMES}),
        (415, "are no image of a known format", {"content": b"%!PS-Adobe-3.0 EPSF-3.0\n", "params": NAMES}),
        (422, "check that the file is whole", {"content": IMAGE[:60], "params": NAMES}),
        (422, "give one of image, the file itself, and image_id", {"params": NAMES}),
        (422, "give one of image", {"content": IMAGE, "params": NAMES | {"image_id": "x"}}),
        (422, "give one of categories", {"content": IMAGE}),
        (422, "give one of categories", {"content": IMAGE, "params": NAMES | {"vocabulary": "voc20"}}),
        (422, "is a duplicate", {"content": IMAGE, "params": {"categories": "red, red"}}),
        (422, "is blank", {"content": IMAGE, "params": {"categories": "red,,blue"}}),
        (422, "begins like a JSON list", {"content": IMAGE, "params": {"categories": "[red"}}),
        (422, "holds no category names", {"json": {"image": TEXT, "categories": []}}),
        (422, "should be a valid string", {"json": {"image": "aGk=", "categories": [1]}}),
        (422, "rejection: 'best' is", {"content": IMAGE, "params": NAMES | {"rejection": "best"}}),
        (422, "short_side: '-1' does not fit", {"content": IMAGE, "params": NAMES | {"short_side": "-1"}}),
        (422, "'3000' does not fit", {"content": IMAGE, "params": NAMES | {"short_side": "3000"}}),
        (422, "output.0: 'masks' does not fit", {"content": IMAGE, "params": NAMES | {"output": "masks"}}),
        (422, "colour: is no field", {"content": IMAGE, "params": NAMES | {"colour": "red"}}),
        (422, "short_side: is given twice", {"content": IMAGE, "params": {"short_side": ["1", "2"]}}),
        (
            422,
            "given in the body and in the query",
            {"files": {"image": IMAGE}, "data": NAMES, "params": NAMES},
        ),
        (422, "image: is a text", {"files": {"other": b"x"}, "data": {"image": "photo.jpg"}}),
        (422, "addresses are not read", {"json": {"image": "http://localhost/photo.jpg", **NAMES}}),
        (422, "is not JSON", {"content": b"{", "headers": {TYPE: "application/json"}}),
        (422, "expected a JSON object", {"json": ["red"]}),
        (422, "is no readable multipart", {"content": b"x", "headers": {TYPE: "multipart/form-data"}}),
        (404, "'mine' is unknown", {"content": IMAGE, "params": {"vocabulary": "mine"}}),
        (404, "'../etc/passwd' is", {"content": IMAGE, "params": {"vocabulary": "../etc/passwd"}}),
    ],
)  # fmt: skip
def test_segment_refuses(strict: Client, status: int, expected: str, request_: dict[str, Any]) -> None:
    assert expected in refusal(strict, status, **request_)
    # No later stage ran.
    assert strict.stage("decode1").shapes == []


def test_too_many_kept_categories_are_refused_before_they_are_decoded(strict: Client) -> None:
    query = {"categories": "red, green, blue, white", "rejection": "none"}
    line = refusal(strict, 422, content=IMAGE, params=query)
    assert "leaves 4 categories, this server takes at most 3; use budget:3" in line
    assert strict.stage("decode1").shapes == []
    query["rejection"] = "budget:3"
    assert strict.post("/v1/segment", content=IMAGE, params=query).json()["kept"] == [3, 3, 3]


def test_an_image_of_a_header_alone_is_not_decoded(strict: Client) -> None:
    """A small file can claim any size; the pixels must not be decoded to find out."""
    file = bytearray(png_bytes(np.zeros((8, 8, 3), dtype=np.uint8)))
    file[16:24] = (60_000).to_bytes(4, "big") * 2
    file[29:33] = zlib.crc32(file[12:29]).to_bytes(4, "big")
    line = refusal(strict, 413, content=bytes(file), params=NAMES)
    assert "pixels, the most that is read" in line


def test_images_refuses(strict: Client) -> None:
    assert "is missing" in refusal(strict, 422, "/v1/images", files={"image": b""}, data={"short_side": "10"})
    assert "is no field" in refusal(strict, 422, "/v1/images", content=IMAGE, params=NAMES)
    assert "no image" in refusal(strict, 415, "/v1/images", content=b"x")


def test_errors_of_the_bundle_hold_no_path(strict: Client) -> None:
    folder = strict.server.service.owner(None).segmenter.bundle.path
    strict.stage("scout").error = InputError(f"{folder / 'scout.onnx'}: OpenVINO cannot run it; use less")
    try:
        line = refusal(strict, 422, content=IMAGE, params=NAMES)
    finally:
        strict.stage("scout").error = None
    assert line == "scout.onnx: OpenVINO cannot run it; use less"


def test_what_is_not_there(client: Client) -> None:
    assert client.get("/v1/nothing").json() == {"error": "/v1/nothing: Not Found"}
    response = client.get("/v1/segment")
    assert (response.status_code, list(response.json())) == (405, ["error"])


def test_examples(serving: Serving, tmp_path: Path) -> None:
    folder = tmp_path / "examples"
    folder.mkdir()
    (folder / "a b.png").write_bytes(IMAGE)
    (folder / "notes.txt").write_text("secret")
    (folder / "vocabulary.txt").write_text("red\nblue, navy\n")
    with serving(server={"examples": folder}) as client:
        listed = client.get("/v1/examples").json()
        assert listed["vocabulary"] == ["red", "blue, navy"]
        (entry,) = listed["images"]
        assert entry["name"] == "a b.png"
        file = client.get(entry["url"])
        assert (file.content, file.headers["Content-Type"]) == (IMAGE, "image/png")
        for name in ("notes.txt", "..%2Fexamples%2Fnotes.txt", "%2e%2e/notes.txt"):
            assert client.get(f"/v1/examples/{name}").status_code == 404
    with serving() as client:
        assert client.get("/v1/examples").json() == {"images": [], "vocabulary": []}


def test_vocabularies(strict: Client) -> None:
    url = "/v1/vocabularies/mine"
    assert strict.get(url).status_code == 404
    assert strict.put(url, json=["red", " blue "]).status_code == 201
    text_runs = len(strict.stage("text").shapes)
    assert strict.get(url).json() == {"name": "mine", "categories": ["red", "blue"]}
    answer = strict.post("/v1/segment", content=IMAGE, params={"vocabulary": "mine"}).json()
    assert answer["names"] == ["red", "blue"]
    # It was embedded by PUT already.
    assert len(strict.stage("text").shapes) == text_runs
    assert strict.put(url, json={"categories": "green; white"}).status_code == 200
    listed = strict.get("/v1/vocabularies").json()
    assert listed["vocabularies"] == [{"name": "mine", "categories": 2}]
    assert "ade150" in listed["published"]
    assert len(strict.get("/v1/vocabularies/ade150").json()["categories"]) == 150
    assert strict.delete(url).status_code == 204
    assert strict.delete(url).status_code == 404
    assert strict.get("/v1/vocabularies").json()["vocabularies"] == []


@pytest.mark.parametrize(
    ("name", "status", "body", "expected"),
    [
        ("mine", 422, '["red", "red"]', "is a duplicate"),
        ("mine", 422, '{"names": ["red"]}', "names: is no field"),
        ("mine", 422, "{}", "categories: is missing"),
        ("mine", 422, '"red', "is not JSON"),
        ("mine", 413, '["a", "b", "c", "d", "e"]', "5 are given"),
        ("ade150", 409, '["red"]', "is a published one"),
        ("-x", 422, '["red"]', "the name '-x' is unfit"),
        ("x" * 65, 422, '["red"]', "is unfit"),
    ],
)
def test_put_refuses(strict: Client, name: str, status: int, body: str, expected: str) -> None:
    response = strict.put(f"/v1/vocabularies/{name}", content=body)
    assert response.status_code == status
    assert expected in response.json()["error"]
    assert strict.get("/v1/vocabularies").json()["vocabularies"] == []


def test_a_long_list_of_names_is_one_vocabulary(client: Client) -> None:
    names = [f"grey {number}" for number in range(1024)]
    assert client.put("/v1/vocabularies/long", json=names).status_code == 201
    assert client.put("/v1/vocabularies/longer", json=[*names, "red"]).status_code == 413
    limits = client.get("/v1/bundles").json()["limits"]
    assert limits["categories"] == 1024
    assert json.loads(client.get("/v1/vocabularies/long").text)["categories"] == names
