"""The Open Inference Protocol (KServe v2) below `/v2`: a bundle is a model, an image and names its inputs."""

import asyncio
from collections.abc import Callable, Collection
from typing import Any, cast

import numpy as np
from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from .. import __version__
from ..runtime import Result
from .fields import ERRORS, SegmentFields, checked_fields
from .http_errors import HttpError
from .owner import NewImage, Owner
from .service import Service
from .tensors import LENGTH_HEADER, InferenceRequest, read_inference, write_inference
from .uploads import check_pixels, open_image, read_body

_INPUTS: list[dict[str, Any]] = [
    {"name": "image", "datatype": "UINT8", "shape": [-1, -1, 3]},
    {"name": "image_file", "datatype": "BYTES", "shape": [1]},
    {"name": "categories", "datatype": "BYTES", "shape": [-1]},
]
_OUTPUTS: list[dict[str, Any]] = [
    {"name": "labels", "datatype": "UINT16", "shape": [-1, -1]},
    {"name": "scores", "datatype": "FP32", "shape": [-1, -1]},
    {"name": "pixels", "datatype": "INT64", "shape": [-1]},
    {"name": "kept", "datatype": "INT32", "shape": [3]},
]
# Fields of `SegmentFields` that are parameters of a request here.
_PARAMETERS = ("rejection", "short_side", "vocabulary")
_VERSION = "1"


def open_inference_routes(service: Service) -> APIRouter:
    """The routes of a service."""
    router = APIRouter(prefix="/v2", tags=["open inference protocol"], responses={422: ERRORS[422]})
    settings = service.settings

    @router.get("")
    async def server_metadata() -> Any:
        """Name and version of the server."""
        return {"name": "sed-trt", "version": __version__, "extensions": ["binary_tensor_data"]}

    @router.get("/health/live")
    async def live() -> JSONResponse:
        """Whether the server works."""
        healthy = await service.healthy()
        return JSONResponse({"live": healthy}, 200 if healthy else 503)

    @router.get("/health/ready")
    async def ready() -> JSONResponse:
        """Whether warm-up is over."""
        return JSONResponse({"ready": service.ready}, 200 if service.ready else 503)

    @router.get("/models/{model}")
    @router.get("/models/{model}/versions/{version}", include_in_schema=False)
    async def model_metadata(model: str, version: str = _VERSION) -> Any:
        """Inputs and outputs of a bundle. Of image, in RGB, and image_file, a file's content, give one."""
        owner = _owner(service, model, version)
        return {
            "name": owner.name,
            "versions": [_VERSION],
            "platform": f"sed-trt_{owner.segmenter.backend}",
            "inputs": _INPUTS,
            "outputs": _OUTPUTS,
        }

    @router.get("/models/{model}/ready")
    @router.get("/models/{model}/versions/{version}/ready", include_in_schema=False)
    async def model_ready(model: str, version: str = _VERSION) -> JSONResponse:
        """Whether a bundle is ready."""
        name = _owner(service, model, version).name
        return JSONResponse({"name": name, "ready": service.ready}, 200 if service.ready else 503)

    @router.post("/models/{model}/infer", responses=ERRORS)
    @router.post("/models/{model}/versions/{version}/infer", include_in_schema=False)
    async def infer(model: str, request: Request, version: str = _VERSION) -> Response:
        """Segment an image. The parameters rejection, short_side and vocabulary are those of /v1/segment."""
        with service.requests.place():
            owner = _owner(service, model, version)
            body = await read_body(request, settings.max_bytes, settings.timeout_s)
            inference = await asyncio.to_thread(read_inference, body, request.headers.get(LENGTH_HEADER))
            return await service.answered(request, _infer(service, owner, inference), settings.timeout_s)

    return router


def _owner(service: Service, model: str, version: str) -> Owner:
    if version != _VERSION:
        raise HttpError(404, f"model: {model!r:.60} has no version {version!r:.40}, only {_VERSION}")
    return service.owner(model)


async def _infer(service: Service, owner: Owner, inference: InferenceRequest) -> Response:
    wanted = _known("output", inference.outputs, _OUTPUTS)
    _known("input", inference.inputs, _INPUTS)
    fields = {name: inference.parameters[name] for name in _PARAMETERS if name in inference.parameters}
    categories = inference.inputs.get("categories")
    if categories is not None:
        fields["categories"] = [_text(name) for name in _checked("categories", categories, "O", 1)]
    checked = checked_fields(SegmentFields, fields)
    image = await _open(service, inference, checked.short_side)
    rejection = service.rejection(checked.rejection)
    names = await service.names(owner, checked.categories, checked.vocabulary)

    def render(result: Result, waited_ms: float) -> Response:
        return write_inference(owner.name, _VERSION, inference, _outputs(result, wanted or _names(_OUTPUTS)))

    return await service.segment(owner, image, names, rejection, render)


async def _open(service: Service, inference: InferenceRequest, short_side: int) -> NewImage:
    """The image of a request; raises HttpError where there is not one, or it cannot be read."""
    limit = service.settings.max_pixels
    given = inference.inputs.keys() & {"image", "image_file"}
    if given == {"image"}:
        array = _checked("image", inference.inputs["image"], "u1", 3)
        height, width = array.shape[:2]
        check_pixels(width, height, limit)
        return NewImage(array, width * height, short_side or None)
    if given != {"image_file"}:
        raise HttpError(422, "image: give one of the inputs image and image_file")
    files = _checked("image_file", inference.inputs["image_file"], "O", 1)
    if len(files) != 1:
        raise HttpError(422, f"input image_file: holds {len(files)} files, expected one")
    image = await asyncio.to_thread(open_image, files[0], limit)
    return NewImage(image, image.width * image.height, short_side or None)


def _outputs(result: Result, wanted: Collection[str]) -> dict[str, np.ndarray]:
    outputs: dict[str, Callable[[], np.ndarray]] = {
        "labels": lambda: result.labels,
        "scores": lambda: cast(np.ndarray, result.scores),
        "pixels": lambda: _pixels(result),
        "kept": lambda: np.array(result.kept, dtype=np.int32),
    }
    return {name: outputs[name]() for name in wanted}


def _pixels(result: Result) -> np.ndarray:
    """Pixels of each category, int64 (T,)."""
    pixels = np.zeros(len(result.names), dtype=np.int64)
    for index, count in result.pixel_counts.items():
        pixels[index] = count
    return pixels


def _known(kind: str, given: Collection[str], known: list[dict[str, Any]]) -> Collection[str]:
    for name in given:
        if name not in _names(known):
            raise HttpError(422, f"{kind} {name!r:.40}: is unknown, expected {', '.join(_names(known))}")
    return given


def _names(tensors: list[dict[str, Any]]) -> list[str]:
    return [tensor["name"] for tensor in tensors]


def _checked(name: str, array: np.ndarray, dtype: str, axes: int) -> np.ndarray:
    """An input of the right type and number of axes; raises HttpError, 422, where it differs."""
    if array.dtype != np.dtype(dtype) or array.ndim != axes:
        (expected,) = (each for each in _INPUTS if each["name"] == name)
        raise HttpError(
            422,
            f"input {name}: is {array.dtype} {list(array.shape)}, expected {expected['datatype']} "
            f"{expected['shape']}",
        )
    return array


def _text(name: bytes) -> str:
    try:
        return name.decode()
    except UnicodeDecodeError as error:
        raise HttpError(422, f"input categories: {name!r:.40} is not UTF-8") from error
