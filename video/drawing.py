"""Frames with coloured labels, above a legend that stays the same for the whole video."""

from collections.abc import Sequence

import numpy as np
from PIL import Image

from ..errors import InputError
from ..runtime.result import MAX_LEGEND_ENTRIES, colours, draw_legend


class Drawing:
    """Draws frames of one size with the categories of one vocabulary.

    Attributes:
        width: of a drawn frame in pixels.
        height: likewise.
    """

    def __init__(self, width: int, height: int, names: Sequence[str], alpha: float, legend: bool) -> None:
        """Draw the legend.

        Args:
            width: of the frames in pixels.
            height: likewise.
            names: the categories, in the order of their indices.
            alpha: weight of the colours, 0 to 1.
            legend: whether to name the categories; more than `MAX_LEGEND_ENTRIES` are never named.

        Raises:
            InputError: `alpha` is out of range.
        """
        check_alpha(alpha)
        self._alpha = alpha
        self._table = colours(len(names))
        self._panel: np.ndarray | None = None
        self.width, self.height = width, height
        if legend and len(names) <= MAX_LEGEND_ENTRIES:
            entries = [
                (tuple(colour), name) for colour, name in zip(self._table.tolist(), names, strict=True)
            ]
            panel = np.asarray(draw_legend(entries, (width, height)))
            self.width, self.height = max(width, panel.shape[1]), height + panel.shape[0]
            self._panel = panel

    def draw(self, image: np.ndarray, labels: np.ndarray | None) -> np.ndarray:
        """The image, uint8 RGB (H, W, 3), with the colours of its labels (H, W) where there are any."""
        if labels is not None and self._alpha:
            layer = Image.fromarray(self._table[labels])
            image = np.asarray(Image.blend(Image.fromarray(image), layer, self._alpha))
        if self._panel is None:
            return image
        canvas = np.full((self.height, self.width, 3), 255, dtype=np.uint8)
        canvas[: image.shape[0], : image.shape[1]] = image
        canvas[image.shape[0] :, : self._panel.shape[1]] = self._panel
        return canvas


def check_alpha(alpha: float) -> None:
    """Raise InputError unless `alpha` is within 0 to 1."""
    if not 0 <= alpha <= 1:
        raise InputError(f"alpha: {alpha} is out of range, expected 0 (image only) to 1 (colours only)")
