"""The patterns on the bodies of things."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

PATTERNS: Final[tuple[str, ...]] = ("plain", "striped", "dotted", "checked")


def pattern_mask(
    pattern: str, height: int, width: int, pitch: float, rng: np.random.Generator
) -> NDArray[np.bool_]:
    """Return the (height, width) mask of the pattern's second tone, for any pattern but "plain".

    ``pitch`` is the repeat in pixels. At most half of the mask is set.
    """
    angle = np.pi / 4 * rng.integers(4)
    cos, sin = np.float32(np.cos(angle) / pitch), np.float32(np.sin(angle) / pitch)
    start = rng.random(2).astype(np.float32)
    x = np.arange(width, dtype=np.float32)[None, :]
    y = np.arange(height, dtype=np.float32)[:, None]
    along = _fraction((x * cos + start[0]) + y * sin)
    if pattern == "striped":
        return np.asarray(along < 0.4)
    across = _fraction((y * cos + start[1]) - x * sin)
    if pattern == "dotted":
        return np.asarray((along - 0.5) ** 2 + (across - 0.5) ** 2 < 0.09)
    return np.asarray((along < 0.5) == (across < 0.5))


def _fraction(values: NDArray[np.float32]) -> NDArray[np.float32]:
    # Much faster than the remainder by 1.
    return values - np.floor(values)
