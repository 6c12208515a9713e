"""Image files in memory."""

from io import BytesIO

import numpy as np
from PIL import Image


def png_bytes(array: np.ndarray) -> bytes:
    """The PNG file of an image, uint8 (H, W, 3) or (H, W)."""
    file = BytesIO()
    Image.fromarray(array).save(file, format="PNG")
    return file.getvalue()


def pixels_of(file: bytes) -> np.ndarray:
    """The pixels of an image file, in its own mode."""
    return np.asarray(Image.open(BytesIO(file)))
