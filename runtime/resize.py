"""The resize of the published evaluation, done before the network sees the image."""

import numpy as np
from PIL import Image

from ..errors import InputError

LONGEST_SIDE = 2560


def short_side_size(height: int, width: int, short_side: int, longest: int = LONGEST_SIDE) -> tuple[int, int]:
    """Height and width in pixels after detectron2's ResizeShortestEdge, at least 1.

    The shorter side becomes `short_side` unless the longer one would then pass `longest`, which it becomes
    instead; sizes round half up.
    """
    scale = short_side / min(height, width)
    new_height, new_width = scale * height, scale * width
    if max(new_height, new_width) > longest:
        scale = longest / max(new_height, new_width)
        new_height, new_width = scale * new_height, scale * new_width
    return max(1, int(new_height + 0.5)), max(1, int(new_width + 0.5))


def resize_short_side(image: np.ndarray, short_side: int | None) -> np.ndarray:
    """uint8 RGB (H, W, 3) with its shorter side resized to `short_side` pixels, bilinear as Pillow does it.

    None leaves the image as it is.

    Raises:
        InputError: `short_side` is less than 1 or more than `LONGEST_SIDE`.
    """
    check_short_side(short_side)
    height, width = image.shape[:2]
    size = (height, width) if short_side is None else short_side_size(height, width, short_side)
    if size == (height, width):
        return image
    return np.array(Image.fromarray(image).resize((size[1], size[0]), Image.Resampling.BILINEAR))


def check_short_side(short_side: int | None) -> None:
    """Raise InputError unless `short_side` is None or 1 to `LONGEST_SIDE` pixels."""
    if short_side is not None and not 1 <= short_side <= LONGEST_SIDE:
        raise InputError(
            f"short_side: {short_side} pixels, expected 1 to {LONGEST_SIDE}, or None for no resize"
        )
