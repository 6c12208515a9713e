"""What the segmentation of one image gives."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from PIL import Image

from .overlay import draw_overlay


@dataclass(frozen=True, eq=False)
class Result:
    """Labels of one image of H x W pixels, upright by its EXIF orientation.

    Attributes:
        labels: uint16 (H, W), index into `names`.
        scores: float32 (H, W), probability of the label.
        names: the T category names that were looked for.
        kept: categories alive after `scout`, `decode1` and `decode2`.
        kept_ids: int64 (K,), indices of those alive at the end, rising.
        timings: milliseconds by step and stage. On a GPU a stage is over as soon as its work is under way;
            the time that the work takes falls to the next stage whose output the host reads. Results of one
            encoded picture all have the time that its encoding took.
        image: uint8 RGB (H, W, 3), the picture itself.
    """

    labels: np.ndarray
    scores: np.ndarray
    names: tuple[str, ...]
    kept: tuple[int, int, int]
    kept_ids: np.ndarray
    timings: Mapping[str, float]
    image: np.ndarray

    @cached_property
    def pixel_counts(self) -> dict[int, int]:
        """Category index to number of pixels, of those present, largest first."""
        counts = np.bincount(self.labels.ravel(), minlength=len(self.names))
        present = sorted(np.flatnonzero(counts), key=lambda index: -counts[index])
        return {int(index): int(counts[index]) for index in present}

    def shares(self) -> dict[str, float]:
        """Category name to its fraction of the picture, of those present, largest first."""
        return {self.names[index]: share for index, share in self._shares_by_index().items()}

    def overlay(self, alpha: float = 0.5, legend: bool = True) -> Image.Image:
        """The picture with its labels in colour and, below it, a legend of what is present with its share.

        Raises:
            InputError: `alpha` is not within 0 (picture only) to 1 (colours only).
        """
        return draw_overlay(self.image, self.labels, self.names, self._shares_by_index(), alpha, legend)

    def _shares_by_index(self) -> dict[int, float]:
        return {index: count / self.labels.size for index, count in self.pixel_counts.items()}
