"""A picture, its truth and its prediction side by side."""

import numpy as np
from PIL import Image

from ..runtime.palette import colours

LONGEST = 512


def side_by_side(
    image: np.ndarray, truth: np.ndarray, prediction: np.ndarray, categories: np.ndarray, count: int
) -> np.ndarray:
    """Draw the three beside each other.

    Args:
        image: RGB uint8 (S, S, 3).
        truth: positions in `categories`, int (R, R); -1, where ignored, is black.
        prediction: positions in `categories`, int (h, h).
        categories: which of all names the positions stand for, int (T,).
        count: of all names; each has the same colour in every picture.

    Returns:
        RGB uint8 (D, 3 D, 3), D the smaller of S and 512.
    """
    side = min(LONGEST, image.shape[0])
    palette = colours(count)[categories]
    black = np.zeros((1, 3), dtype=np.uint8)
    table = np.concatenate([palette, black])
    parts = [Image.fromarray(image).resize((side, side), Image.Resampling.BILINEAR)]
    parts += [
        Image.fromarray(table[labels]).resize((side, side), Image.Resampling.NEAREST)
        for labels in (truth, prediction)
    ]
    return np.concatenate([np.asarray(part) for part in parts], axis=1)
