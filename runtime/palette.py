"""One colour per category index, the same in every run."""

import colorsys

import numpy as np

_GOLDEN_RATIO = 0.618033988749895
# Neighbours in hue differ in strength, so that many categories stay apart.
_SATURATION_AND_VALUE = ((0.80, 0.95), (0.55, 0.80), (0.95, 0.70), (0.45, 1.00))


def colours(count: int) -> np.ndarray:
    """RGB of the categories 0 to count - 1, uint8 (count, 3); hues follow the golden ratio."""
    table = [
        colorsys.hsv_to_rgb(index * _GOLDEN_RATIO % 1, *_SATURATION_AND_VALUE[index % 4])
        for index in range(count)
    ]
    return np.rint(np.array(table) * 255).astype(np.uint8)
