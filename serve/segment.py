"""The routes that take images: `/v1/segment` and `/v1/images`."""

import asyncio
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from ..runtime import EncodedImage, Result
from .answers import PNG_TYPE, json_answer, png_answer
from .fields import (
    ERRORS,
    ImageAnswer,
    ImageFields,
    SegmentAnswer,
    SegmentBody,
    SegmentFields,
    checked_fields,
)
from .http_errors import HttpError
from .owner import NewImage, Owner
from .service import Service
from .uploads import JSON_TYPE, MULTIPART_TYPE, Upload, open_image, read_upload

_BINARY = {"type": "string", "format": "binary"}


def image_routes(service: Service) -> APIRouter:
    """The routes of a service that take images."""
    router = APIRouter(prefix="/v1", tags=["images"], responses={422: ERRORS[422]})
    settings = service.settings

    @router.post(
        "/segment",
        responses={200: {"model": SegmentAnswer, "content": {PNG_TYPE: {}}}, **ERRORS},
        openapi_extra=_body(SegmentFields, SegmentBody),
    )
    async def segment(request: Request) -> Response:
        """Label every pixel of an image with one of the categories.

        The image is the body, a field of a multipart or JSON body, or was kept by `POST /v1/images`; the
        other fields are in the query or in the body. With `Accept: image/png` the answer is the label map.
        """
        with service.requests.place():
            upload = await read_upload(request, settings.max_bytes, settings.timeout_s)
            fields = checked_fields(SegmentFields, upload.fields)
            png = _wants_png(request)
            return await service.answered(request, _segment(service, upload, fields, png), settings.timeout_s)

    @router.post(
        "/images",
        status_code=201,
        responses={201: {"model": ImageAnswer}, **ERRORS},
        openapi_extra=_body(ImageFields),
    )
    async def keep_image(request: Request) -> Response:
        """Encode an image and keep that for a while, for any number of requests with its identifier."""
        with service.requests.place():
            upload = await read_upload(request, settings.max_bytes, settings.timeout_s)
            fields = checked_fields(ImageFields, upload.fields)
            return await service.answered(request, _keep(service, upload, fields), settings.timeout_s)

    @router.delete("/images/{image}", status_code=204, responses={404: ERRORS[404]})
    async def forget_image(image: str) -> Response:
        """Forget a kept image."""
        if not service.kept.remove(image):
            raise _unknown_image(image)
        return Response(status_code=204)

    return router


async def _segment(service: Service, upload: Upload, fields: SegmentFields, png: bool) -> Response:
    rejection = service.rejection(fields.rejection)
    if fields.image_id is None and upload.image is not None:
        owner = service.owner(fields.bundle)
        image: NewImage | EncodedImage = await _open(service, upload.image, fields.short_side)
    elif fields.image_id is not None and upload.image is None:
        owner, image = _kept_image(service, fields.image_id, fields.bundle)
    else:
        raise HttpError(422, "image: give one of image, the file itself, and image_id")
    names = await service.names(owner, fields.categories, fields.vocabulary)

    def render(result: Result, waited_ms: float) -> Response:
        if png:
            return png_answer(result, owner.name, waited_ms)
        return json_answer(result, fields.output, owner.name, waited_ms)

    return await service.segment(owner, image, names, rejection, render)


async def _keep(service: Service, upload: Upload, fields: ImageFields) -> Response:
    owner = service.owner(fields.bundle)
    if upload.image is None:
        raise HttpError(422, "image: is missing; send the file as the body or as the field image")
    image = await _open(service, upload.image, fields.short_side)
    with owner.images.place():
        encoded = await owner.encode(image)
    name = service.kept.put(owner.name, encoded)
    if name is None:
        raise HttpError(
            413, "image: is too large to be kept; send it to POST /v1/segment, or make it smaller"
        )
    service.metrics.steps_done(owner.name, encoded.timings)
    height, width = encoded.image.shape[:2]
    content = {
        "image": name,
        "width": width,
        "height": height,
        "bundle": owner.name,
        "expires_in_s": service.settings.image_ttl_s,
        "timings_ms": {step: round(milliseconds, 3) for step, milliseconds in encoded.timings.items()},
    }
    return JSONResponse(content, 201)


async def _open(service: Service, content: bytes, short_side: int) -> NewImage:
    image = await asyncio.to_thread(open_image, content, service.settings.max_pixels)
    return NewImage(image, image.width * image.height, short_side or None)


def _kept_image(service: Service, name: str, bundle: str | None) -> tuple[Owner, EncodedImage]:
    kept = service.kept.get(name)
    service.metrics.looked_up("image", kept is not None)
    if kept is None:
        raise _unknown_image(name)
    if bundle not in (None, kept.bundle):
        raise HttpError(
            422,
            f"bundle: the image was encoded by {kept.bundle}; post it again for the bundle {bundle!r:.60}",
        )
    return service.owner(kept.bundle), kept.encoded


def _unknown_image(name: str) -> HttpError:
    return HttpError(
        404, f"image: {name!r:.40} is not kept, or not any longer; post the image again to /v1/images"
    )


def _wants_png(request: Request) -> bool:
    """Whether a client accepts the label map and no JSON."""
    accepted = {part.split(";")[0].strip().lower() for part in request.headers.get("accept", "").split(",")}
    return PNG_TYPE in accepted and not accepted & {JSON_TYPE, "*/*"}


def _body(fields: type[ImageFields], json_body: type[SegmentBody] | None = None) -> dict[str, Any]:
    """What the API's description says of the body and the query of a request with an image."""
    properties = fields.model_json_schema()["properties"]
    form = {"type": "object", "properties": {"image": _BINARY} | properties}
    content: dict[str, Any] = {MULTIPART_TYPE: {"schema": form}, "image/*": {"schema": _BINARY}}
    if json_body is not None:
        content[JSON_TYPE] = {"schema": json_body.model_json_schema()}
    query = [
        {"name": name, "in": "query", "schema": schema, "description": "Where the body is the image alone."}
        for name, schema in properties.items()
    ]
    return {"requestBody": {"content": content, "required": True}, "parameters": query}
