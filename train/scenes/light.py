"""Light and camera: brightness across the picture, tint, contrast, noise and blur."""

from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

_NOISE_SIDE: Final = 1024


@lru_cache(maxsize=1)
def _noise() -> NDArray[np.float32]:
    return np.random.default_rng(0).normal(0, 1, (_NOISE_SIDE * _NOISE_SIDE * 3)).astype(np.float32)


def relight(image: Image.Image, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Return the RGB picture as (height, width, 3), under a random light and through a random camera."""
    if rng.random() < 0.3:
        image = image.filter(ImageFilter.BoxBlur(float(rng.uniform(0.2, 0.8))))
    pixels = np.asarray(image).astype(np.float32)
    height, width = pixels.shape[:2]
    slope_x, slope_y = rng.uniform(-0.14, 0.14, 2)
    gain = (
        rng.uniform(0.82, 1.10)
        + slope_x * np.linspace(-1, 1, width, dtype=np.float32)[None, :]
        + slope_y * np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    )
    tint = rng.uniform(0.94, 1.06, 3)
    contrast = float(rng.uniform(0.85, 1.08))
    pixels *= gain.astype(np.float32)[..., None]
    pixels *= (tint * contrast).astype(np.float32)
    pixels += 118 * (1 - contrast)
    if rng.random() < 0.6:
        noise, start = _noise(), int(rng.integers(_NOISE_SIDE))
        strength = np.float32(rng.uniform(1, 6))
        pixels += strength * np.resize(noise[start : start + pixels.size], pixels.shape)
    return np.clip(pixels, 0, 255, out=pixels).astype(np.uint8)
