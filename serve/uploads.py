"""What clients send: the body of a request within its limits, its fields, and the image among them."""

import asyncio
import base64
import binascii
import json
import sys
from collections.abc import AsyncGenerator, Iterable, Mapping
from dataclasses import dataclass
from io import BytesIO
from typing import Any

from fastapi import Request
from PIL import Image
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect

from ..runtime.images import DECODING_ERRORS
from .http_errors import CLIENT_GONE, HttpError

JSON_TYPE = "application/json"
MULTIPART_TYPE = "multipart/form-data"
# Pillow reads many more, some of them with other programs' help.
_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
_MAX_FIELDS = 16


@dataclass(frozen=True)
class Upload:
    """The image of a request as a file's bytes, and its other fields."""

    image: bytes | None
    fields: Mapping[str, Any]


class _InMemoryParser(MultiPartParser):
    """Keeps parts in memory, which the limit of the body bounds, instead of in temporary files."""

    spool_max_size = sys.maxsize


async def read_body(request: Request, max_bytes: int, timeout_s: float) -> bytes:
    """The body of a request.

    Raises:
        HttpError: 413, it is too long; 415, it is compressed; 408, it took too long; or the client is gone.
    """
    encoding = request.headers.get("content-encoding", "identity")
    if encoding != "identity":
        raise HttpError(415, f"body: its content encoding is {encoding!r:.40}; send it without one")
    # The rest of a body that nobody reads must not be waited for.
    too_long = HttpError(
        413, f"body: is longer than {max_bytes} bytes, the most that is read", {"Connection": "close"}
    )
    stated = request.headers.get("content-length", "0")
    if not stated.isdecimal() or int(stated) > max_bytes:
        raise too_long
    body = bytearray()
    try:
        async with asyncio.timeout(timeout_s):
            async for chunk in request.stream():
                body += chunk
                if len(body) > max_bytes:
                    raise too_long
    except TimeoutError as error:
        raise HttpError(
            408, f"body: did not arrive within {timeout_s:g} s; send it faster", {"Connection": "close"}
        ) from error
    except ClientDisconnect as error:
        raise HttpError(CLIENT_GONE, "the client is gone") from error
    return bytes(body)


async def read_upload(request: Request, max_bytes: int, timeout_s: float) -> Upload:
    """The image and the fields of a request: those of its query, and of a multipart or JSON body.

    Raises:
        HttpError: as `read_body`; 415, the body is of another type; 422, it cannot be read.
    """
    kind = _content_type(request)
    if kind not in (JSON_TYPE, MULTIPART_TYPE, "application/octet-stream", "") and not _is_image(kind):
        raise HttpError(
            415,
            f"body: its type is {kind!r:.60}, expected {MULTIPART_TYPE}, {JSON_TYPE} or an image's, such as "
            "image/jpeg",
        )
    body = await read_body(request, max_bytes, timeout_s)
    query = _unique(request.query_params.multi_items())
    image: bytes | None
    if kind == MULTIPART_TYPE:
        form = await _parse_form(request, body)
        image = form.pop("image", None)
        if isinstance(image, str):
            raise HttpError(422, 'image: is a text, expected a file; with curl, -F "image=@photo.jpg"')
    elif kind == JSON_TYPE:
        form = json_value(body)
        if not isinstance(form, dict):
            raise HttpError(422, f"body: is {form!r:.40}, expected a JSON object")
        image = _decode_image(form.pop("image", None))
    else:
        form, image = {}, body
    for name in form.keys() & query.keys():
        raise HttpError(422, f"{name}: is given in the body and in the query; give it once")
    return Upload(image or None, query | form)


def json_value(body: bytes) -> Any:
    """What a body holds in JSON; raises HttpError, 422, where it holds something else."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise HttpError(422, f"body: is not JSON ({error})") from error


def open_image(content: bytes, max_pixels: int) -> Image.Image:
    """The image of a file's content, of which only the header is read.

    Raises:
        HttpError: 415, it is no image of a known format; 413, it has too many pixels; 422, it is damaged.
    """
    try:
        image = Image.open(BytesIO(content), formats=_FORMATS)
    except Image.UnidentifiedImageError as error:
        raise HttpError(
            415, f"image: its {len(content)} bytes are no image of a known format; send PNG, JPEG or WebP"
        ) from error
    except Image.DecompressionBombError as error:
        raise HttpError(413, f"image: has over {max_pixels} pixels, the most that is read") from error
    except DECODING_ERRORS as error:
        raise HttpError(422, f"image: cannot be read ({error}); check that the file is whole") from error
    check_pixels(image.width, image.height, max_pixels)
    return image


def check_pixels(width: int, height: int, max_pixels: int) -> None:
    """Raise HttpError, 413, where an image has too many pixels."""
    if width * height > max_pixels:
        raise HttpError(
            413,
            f"image: {width} x {height} is over {max_pixels} pixels, the most that is read; make it smaller",
        )


def _content_type(request: Request) -> str:
    return request.headers.get("content-type", "").split(";")[0].strip().lower()


def _is_image(kind: str) -> bool:
    return kind.startswith("image/")


def _unique(items: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for name, value in items:
        if name in fields:
            raise HttpError(422, f"{name[:40]}: is given twice; give it once")
        fields[name] = value
    return fields


async def _parse_form(request: Request, body: bytes) -> dict[str, Any]:
    """The fields of a multipart body: texts, and files as bytes."""

    async def whole() -> AsyncGenerator[bytes, None]:
        yield body

    parser = _InMemoryParser(
        request.headers, whole(), max_files=1, max_fields=_MAX_FIELDS, max_part_size=max(1, len(body))
    )
    try:
        form = await parser.parse()
    except (MultiPartException, KeyError, ValueError) as error:
        # python-multipart raises ValueErrors of its own, and KeyError stands for a missing boundary.
        reason = getattr(error, "message", error)
        raise HttpError(422, f"body: is no readable {MULTIPART_TYPE} ({reason})") from error
    items = _unique(form.multi_items())
    return {name: value if isinstance(value, str) else await value.read() for name, value in items.items()}


def _decode_image(text: object) -> bytes | None:
    if text is None:
        return None
    try:
        if isinstance(text, str):
            return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        pass
    raise HttpError(422, f"image: {text!r:.40} is no base64 text of an image file; addresses are not read")
