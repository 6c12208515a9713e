"""The pictures of a data set."""

from pathlib import Path

import numpy as np
from PIL import Image

from ...runtime.images import load_image
from .decoding import decoding


def read_upright(path: Path) -> np.ndarray:
    """The picture, uint8 RGB (H, W, 3), turned as its EXIF orientation says, as detectron2 reads it.

    Raises:
        InputError: the file cannot be read.
    """
    return load_image(path)


def read_as_stored(path: Path) -> np.ndarray:
    """The picture, uint8 RGB (H, W, 3), whatever its EXIF orientation says.

    Raises:
        InputError: the file cannot be read.
    """
    with decoding(path), Image.open(path) as image:
        return load_image(np.array(image.convert("RGB")))
