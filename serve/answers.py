"""Answers of `POST /v1/segment`: JSON with images in base64, or the label map alone."""

import base64
import json
from collections.abc import Collection
from io import BytesIO
from typing import Any

import numpy as np
from fastapi import Response
from PIL import Image

from ..runtime import Result
from ..runtime.result import PALETTE_SIZE, colours, summary
from ..runtime.rle import encode_labels

PNG_TYPE = "image/png"
SUMMARY_HEADER = "X-Sed-Trt-Summary"
# Proxies refuse longer headers.
_MAX_HEADER = 4096


def json_answer(result: Result, wanted: Collection[str], bundle: str, queue_ms: float) -> Response:
    """The answer in JSON, with those of `fields.OUTPUTS` that are wanted."""
    content = _content(result, bundle, queue_ms)
    if "labels" in wanted:
        content["labels"] = _encoded(label_image(result))
    if "rle" in wanted:
        content["rle"] = [
            {"index": index, "size": list(result.labels.shape), "counts": counts}
            for index, counts in encode_labels(result.labels).items()
        ]
    if "overlay" in wanted:
        content["overlay"] = _encoded(result.overlay())
    if "scores" in wanted and result.scores is not None:
        content["scores"] = _encoded(Image.fromarray(np.rint(result.scores * 255).astype(np.uint8)))
    return Response(json.dumps(content, separators=(",", ":")), media_type="application/json")


def png_answer(result: Result, bundle: str, queue_ms: float) -> Response:
    """The label map alone; a header tells the rest in JSON where that is short enough."""
    content = _content(result, bundle, queue_ms)
    line = json.dumps(content, separators=(",", ":"))
    headers = {SUMMARY_HEADER: line} if len(line) <= _MAX_HEADER else None
    return Response(_png(label_image(result)), media_type=PNG_TYPE, headers=headers)


def label_image(result: Result) -> Image.Image:
    """The label map in grey: 8 bits up to 256 categories, 16 bits above."""
    labels = result.labels
    return Image.fromarray(labels.astype(np.uint8) if len(result.names) <= PALETTE_SIZE else labels)


def _content(result: Result, bundle: str, queue_ms: float) -> dict[str, Any]:
    content = summary("", result)
    del content["image"]
    table = colours(len(result.names))
    for category in content["categories"]:
        category["colour"] = f"#{table[category['index']].tobytes().hex()}"
    return {"bundle": bundle, "names": list(result.names), "queue_ms": round(queue_ms, 3)} | content


def _encoded(image: Image.Image) -> dict[str, str]:
    return {"encoding": "png", "data": base64.b64encode(_png(image)).decode("ascii")}


def _png(image: Image.Image) -> bytes:
    file = BytesIO()
    # Higher levels take several times as long and save little.
    image.save(file, format="PNG", compress_level=1)
    return file.getvalue()
