"""How much labels flicker: how often they change from frame to frame where the image does not.

The measure is 1 - VC2, with VC the video consistency of VSPW (Miao et al., CVPR 2021) over two frames:

    flicker = |{p : L_t(p) != L_(t-1)(p) and D_t(p) <= STILL}| / |{p : D_t(p) <= STILL}|

summed over all pairs of consecutive segmented frames. VC counts pixels whose true category stays the same;
without ground truth these are here the pixels whose image stays the same. D_t(p) is the largest difference of
red, green and blue between the frames, 0 to 255, after both were averaged down to the grid on which the
network decides, which also averages out most noise of camera and compression.
"""

from typing import Any

import numpy as np
from PIL import Image

# Differences of 8-bit colours up to this count as no change of the image.
STILL = 8


class ImageChange:
    """Differences between the images of consecutive frames, on a square grid."""

    def __init__(self, side: int) -> None:
        """`side` is that of the grid in pixels."""
        self._side = side
        self._last: np.ndarray | None = None

    def update(self, image: np.ndarray) -> np.ndarray | None:
        """Take the next frame, uint8 RGB (H, W, 3).

        Returns:
            Largest difference of the three colours to the frame before, int16 (side, side); None for the
            first frame.
        """
        size = (self._side, self._side)
        small = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BOX)).astype(np.int16)
        last, self._last = self._last, small
        return None if last is None else np.abs(small - last).max(axis=2)


class Flicker:
    """The measure over a video, and the share of all pixels whose label changes."""

    def __init__(self) -> None:
        self._last: np.ndarray | None = None
        self._pixels = self._changed = self._still = self._still_changed = 0

    def update(self, labels: np.ndarray, difference: np.ndarray | None) -> None:
        """Take the labels of the next frame, integers (side, side), and what `ImageChange` gives for it."""
        last, self._last = self._last, labels
        if last is None or difference is None:
            return
        changed, still = labels != last, difference <= STILL
        self._pixels += labels.size
        self._changed += int(changed.sum())
        self._still += int(still.sum())
        self._still_changed += int((changed & still).sum())

    def summary(self) -> dict[str, Any]:
        """The shares 0 to 1, None where there was nothing to count.

        `flicker` is the measure, `changed` the share of all pixels whose label changes, and `still` the share
        of the pixels whose image stays the same.
        """
        return {
            "flicker": _share(self._still_changed, self._still),
            "changed": _share(self._changed, self._pixels),
            "still": _share(self._still, self._pixels),
        }


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def sample(labels: np.ndarray, side: int) -> np.ndarray:
    """The labels (H, W) at the pixels in the centres of a grid of `side` x `side` cells."""
    rows, columns = ((np.arange(side) * 2 + 1) * size // (2 * side) for size in labels.shape)
    return labels[rows[:, None], columns]
