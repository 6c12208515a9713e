"""The Open Inference Protocol with the client that NVIDIA publishes for it."""

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

from sed_trt.runtime import Segmenter
from sed_trt.serve.run import Server
from sed_trt.tests.fakes.engines import quarters
from sed_trt.tests.fakes.images import png_bytes
from sed_trt.tests.fakes.results import scores_of
from sed_trt.tests.serve.conftest import PATIENCE_S, Client, Serving

OUTPUTS = {"labels": "UINT16", "scores": "FP32", "pixels": "INT64", "kept": "INT32"}
COLOURS = ["red", "green", "blue", "white"]


def connect(url: str) -> triton.InferenceServerClient:
    """A client of the server at an address."""
    return triton.InferenceServerClient(url.removeprefix("http://"), network_timeout=PATIENCE_S)


@pytest.fixture
def tiny_triton(tiny_server: Server) -> Iterator[triton.InferenceServerClient]:
    """A client of the server of sed-tiny."""
    client = connect(tiny_server.url)
    yield client
    client.close()


@pytest.fixture
def colours_triton(client: Client) -> Iterator[triton.InferenceServerClient]:
    """A client of the server on stages in numpy."""
    each = connect(client.server.url)
    yield each
    each.close()


def text_input(name: str, entries: list[Any], binary: bool) -> triton.InferInput:
    """An input of texts or bytes."""
    tensor = triton.InferInput(name, [len(entries)], "BYTES")
    tensor.set_data_from_numpy(np.array(entries, dtype=np.object_), binary_data=binary)
    return tensor


def image_input(image: np.ndarray, binary: bool = True) -> triton.InferInput:
    """An image as a tensor."""
    tensor = triton.InferInput("image", list(image.shape), "UINT8")
    tensor.set_data_from_numpy(image, binary_data=binary)
    return tensor


def test_server_and_model_are_described(tiny_triton: triton.InferenceServerClient) -> None:
    assert tiny_triton.is_server_live()
    assert tiny_triton.is_server_ready()
    assert tiny_triton.is_model_ready("tiny")
    assert tiny_triton.is_model_ready("tiny", "1")
    assert tiny_triton.get_server_metadata()["name"] == "sed-trt"
    metadata = tiny_triton.get_model_metadata("tiny")
    assert (metadata["name"], metadata["versions"]) == ("tiny", ["1"])
    assert {tensor["name"]: tensor["datatype"] for tensor in metadata["outputs"]} == OUTPUTS
    assert {tensor["name"] for tensor in metadata["inputs"]} == {"image", "image_file", "categories"}


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("as_file", [True, False])
def test_answers_equal_those_of_the_segmenter(
    tiny_triton: triton.InferenceServerClient,
    tiny_segmenter: Segmenter,
    photo: np.ndarray,
    photo_file: bytes,
    binary: bool,
    as_file: bool,
) -> None:
    names = ["sky", "grass", "tree, trees", "brick wall"]
    expected = tiny_segmenter(photo, names, short_side=200)
    # A file is not text, so JSON cannot hold it.
    image = text_input("image_file", [photo_file], True) if as_file else image_input(photo, binary)
    result = tiny_triton.infer(
        "tiny",
        [image, text_input("categories", names, binary)],
        outputs=[triton.InferRequestedOutput(name, binary_data=binary) for name in OUTPUTS],
        request_id="seven",
        parameters={"short_side": 200},
    )
    assert result.get_response()["id"] == "seven"
    assert {tensor["name"]: tensor["datatype"] for tensor in result.get_response()["outputs"]} == OUTPUTS
    assert np.array_equal(result.as_numpy("labels"), expected.labels)
    assert np.allclose(result.as_numpy("scores"), scores_of(expected), atol=1e-6)
    assert result.as_numpy("kept").tolist() == list(expected.kept)
    pixels = np.bincount(expected.labels.ravel(), minlength=len(names))
    assert np.array_equal(result.as_numpy("pixels"), pixels)


def test_without_outputs_all_come_in_binary(colours_triton: triton.InferenceServerClient) -> None:
    result = colours_triton.infer(
        "colours",
        [image_input(quarters()), text_input("categories", COLOURS, True)],
        parameters={"short_side": 0, "rejection": "none"},
    )
    answer = result.get_response()
    assert [tensor["name"] for tensor in answer["outputs"]] == list(OUTPUTS)
    assert all("binary_data_size" in tensor["parameters"] for tensor in answer["outputs"])
    assert result.as_numpy("pixels").tolist() == [600, 600, 600, 600]
    assert result.as_numpy("labels").shape == (40, 60)
    assert result.as_numpy("kept").tolist() == [4, 4, 4]


def test_only_what_is_asked_for_comes(colours_triton: triton.InferenceServerClient) -> None:
    result = colours_triton.infer(
        "colours",
        [image_input(quarters()), text_input("categories", COLOURS, False)],
        outputs=[triton.InferRequestedOutput("kept", binary_data=False)],
    )
    assert [tensor["name"] for tensor in result.get_response()["outputs"]] == ["kept"]


def test_a_registered_vocabulary(client: Client, colours_triton: triton.InferenceServerClient) -> None:
    assert client.put("/v1/vocabularies/mine", json=COLOURS).status_code == 201
    result = colours_triton.infer(
        "colours", [image_input(quarters())], parameters={"vocabulary": "mine", "short_side": 0}
    )
    assert result.as_numpy("pixels").tolist() == [600, 600, 600, 600]


def wrong(name: str, array: np.ndarray, datatype: str) -> triton.InferInput:
    """An input of any name and type."""
    tensor = triton.InferInput(name, list(array.shape), datatype)
    tensor.set_data_from_numpy(array)
    return tensor


@pytest.mark.parametrize(
    ("inputs", "options", "status", "expected"),
    [
        ([image_input(quarters())], {}, 422, "give one of categories"),
        ([text_input("categories", COLOURS, True)], {}, 422, "give one of the inputs image and image_file"),
        ([wrong("picture", quarters(), "UINT8")], {}, 422, "input 'picture': is unknown"),
        (
            [wrong("image", quarters().astype(np.float32), "FP32"), text_input("categories", COLOURS, True)],
            {},
            422,
            r"is float32 \[40, 60, 3\], expected UINT8",
        ),
        (
            [text_input("image_file", [b"x"], True), text_input("categories", COLOURS, True)],
            {},
            415,
            "no image of a known format",
        ),
        (
            [image_input(quarters()), text_input("categories", COLOURS, True)],
            {"outputs": [triton.InferRequestedOutput("masks")]},
            422,
            "output 'masks': is unknown",
        ),
        (
            [image_input(quarters()), text_input("categories", COLOURS, True)],
            {"parameters": {"rejection": "best"}},
            422,
            "'best' is unknown",
        ),
        (
            [image_input(quarters()), text_input("categories", COLOURS, True)],
            {"model_version": "2"},
            404,
            "has no version '2'",
        ),
        (
            [image_input(quarters()), text_input("categories", ["red", "red"], True)],
            {},
            422,
            "is a duplicate",
        ),
    ],
)
def test_errors_reach_the_client(
    colours_triton: triton.InferenceServerClient,
    inputs: list[triton.InferInput],
    options: dict[str, Any],
    status: int,
    expected: str,
) -> None:
    with pytest.raises(InferenceServerException, match=expected) as caught:
        colours_triton.infer("colours", inputs, **options)
    assert caught.value.status() == str(status)


def test_an_unknown_model(colours_triton: triton.InferenceServerClient) -> None:
    assert not colours_triton.is_model_ready("other")
    with pytest.raises(InferenceServerException, match="'other' is not served"):
        colours_triton.get_model_metadata("other")


def test_compressed_requests_are_refused(colours_triton: triton.InferenceServerClient) -> None:
    inputs = [image_input(quarters()), text_input("categories", COLOURS, True)]
    with pytest.raises(InferenceServerException, match="content encoding") as caught:
        colours_triton.infer("colours", inputs, request_compression_algorithm="gzip")
    assert caught.value.status() == "415"


def test_a_busy_server_answers_429(serving: Serving) -> None:
    with serving(queue=1) as client, ThreadPoolExecutor(1) as pool:
        client.stage("image").gate.clear()
        query = {"categories": "red"}
        first = pool.submit(client.post, "/v1/segment", content=png_bytes(quarters()), params=query)
        assert client.stage("image").entered.acquire(timeout=PATIENCE_S)
        connection = connect(client.server.url)
        inputs = [image_input(quarters()), text_input("categories", ["red"], True)]
        with pytest.raises(InferenceServerException, match="busy") as caught:
            connection.infer("colours", inputs)
        assert caught.value.status() == "429"
        client.stage("image").gate.set()
        assert first.result(PATIENCE_S).status_code == 200
        assert connection.infer("colours", inputs).as_numpy("labels").shape == (40, 60)
        connection.close()


@pytest.mark.parametrize(
    ("body", "length", "expected"),
    [
        (b"{", None, "Invalid JSON"),
        (b'{"inputs": []}', None, "inputs: "),
        (b'{"inputs": []}', "99", "Inference-Header-Content-Length: is '99'"),
        (b'{"inputs": []}', "-1", "Inference-Header-Content-Length: is '-1'"),
        (
            b'{"inputs": [{"name": "image", "shape": [-1], "datatype": "UINT8"}]}',
            None,
            "inputs.0.shape.0",
        ),
        (b'{"inputs": [{"name": "image", "shape": [1], "datatype": "INT4"}]}', None, "inputs.0.datatype"),
        (
            b'{"inputs": [{"name": "image", "shape": [2], "datatype": "UINT8", "data": [1]}]}',
            None,
            r"holds 1 elements, its shape \[2\] differs",
        ),
        (
            b'{"inputs": [{"name": "image", "shape": [1], "datatype": "UINT8", "data": [300]}]}',
            None,
            "its data is no list of UINT8",
        ),
        (
            b'{"inputs": [{"name": "image", "shape": [1], "datatype": "UINT8",'
            b' "parameters": {"binary_data_size": 9}}]}',
            None,
            "binary_data_size is 9, 0 bytes are left",
        ),
        (
            b'{"inputs": [{"name": "categories", "shape": [1], "datatype": "BYTES",'
            b' "parameters": {"binary_data_size": 5}}]}\x09\x00\x00\x00a',
            None,
            "its bytes end within an element",
        ),
        (
            b'{"inputs": [{"name": "image", "shape": [2], "datatype": "UINT8",'
            b' "parameters": {"binary_data_size": 1}}]}a',
            None,
            "has 1 bytes, expected those of UINT8",
        ),
        (
            b'{"inputs": [{"name": "image", "shape": [1], "datatype": "UINT8", "data": [1]}]}abc',
            None,
            "3 bytes belong to no input",
        ),
    ],
)
def test_broken_requests_are_answered_422(
    client: Client, body: bytes, length: str | None, expected: str
) -> None:
    if length is None and not body.endswith((b"{", b"}")):
        length = str(body.rindex(b"}") + 1)
    headers = {} if length is None else {"Inference-Header-Content-Length": length}
    response: httpx.Response = client.post("/v2/models/colours/infer", content=body, headers=headers)
    assert response.status_code == 422, response.text
    assert re.search(expected, response.json()["error"]), response.text
