"""Results as files: label map, overlay and summary."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..atomic import replacing
from .palette import colours
from .result import Result

PALETTE_SIZE = 256


def write_labels(path: Path, result: Result) -> None:
    """Write the label map as PNG: palette colours up to 256 categories, 16-bit grey above.

    Pixel values are category indices in both. Raises InputError when the file cannot be written.
    """
    count = len(result.names)
    if count <= PALETTE_SIZE:
        picture = Image.fromarray(result.labels.astype(np.uint8))
        picture.putpalette(colours(count).tobytes())
    else:
        picture = Image.fromarray(result.labels)
    with replacing(path) as temporary:
        picture.save(temporary, format="PNG")


def write_overlay(path: Path, result: Result) -> None:
    """Write the picture with its labels in colour as PNG; raises InputError when that cannot be done."""
    with replacing(path) as temporary:
        # Of a photo the usual level takes four times as long and saves next to nothing.
        result.overlay().save(temporary, format="PNG", compress_level=1)


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write `content` as JSON; raises InputError when the file cannot be written."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def summary(source: str, result: Result) -> dict[str, Any]:
    """What `result` says of the picture `source`, ready for JSON: sizes in pixels, times in milliseconds."""
    height, width = result.labels.shape
    shares = result.shares()
    return {
        "image": source,
        "width": width,
        "height": height,
        "categories": [
            {
                "index": index,
                "name": result.names[index],
                "share": shares[result.names[index]],
                "pixels": count,
            }
            for index, count in result.pixel_counts.items()
        ],
        "kept": list(result.kept),
        "timings_ms": {stage: round(ms, 3) for stage, ms in result.timings.items()},
    }
