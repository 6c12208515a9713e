"""Mean intersection over union."""

from collections.abc import Iterable

import numpy as np


class Confusion:
    """Counts, over a whole set, how often each true category was given each predicted one.

    Attributes:
        counts: int64 (T, T), rows true, columns predicted.
    """

    def __init__(self, categories: int) -> None:
        self.counts = np.zeros((categories, categories), dtype=np.int64)

    def add(self, truth: np.ndarray, predicted: np.ndarray) -> None:
        """Count one picture.

        Args:
            truth: integers (H, W); values outside 0..T-1 are ignored pixels.
            predicted: integers 0..T-1, (H, W).

        Raises:
            ValueError: the shapes differ, or a prediction is out of range.
        """
        if truth.shape != predicted.shape:
            raise ValueError(f"labels are {truth.shape} but predictions {predicted.shape}")
        categories = len(self.counts)
        true = truth.astype(np.int64).ravel()
        given = predicted.astype(np.int64).ravel()
        if given.min(initial=0) < 0 or given.max(initial=0) >= categories:
            found = f"from {given.min()} to {given.max()}"
            raise ValueError(f"predictions reach {found}, expected 0 to {categories - 1}")
        counted = (true >= 0) & (true < categories)
        pairs = true[counted] * categories + given[counted]
        self.counts += np.bincount(pairs, minlength=categories**2).reshape(categories, categories)

    def iou(self) -> np.ndarray:
        """IoU of each category, float64 (T,); NaN where it neither occurs nor is predicted."""
        hit = np.diag(self.counts).astype(np.float64)
        union = self.counts.sum(0) + self.counts.sum(1) - hit
        return np.divide(hit, union, out=np.full_like(hit, np.nan), where=union > 0)

    def miou(self, categories: Iterable[int] | None = None) -> float:
        """Mean of the IoU, in percent, over those of `categories` that occur in the truth; None means all."""
        occurring = self.counts.sum(1) > 0
        chosen = np.zeros(len(self.counts), dtype=bool)
        chosen[list(range(len(self.counts)) if categories is None else categories)] = True
        values = self.iou()[occurring & chosen]
        return float(values.mean() * 100) if len(values) else float("nan")

    def pixel_accuracy(self) -> float:
        """Share of counted pixels given their true category, in percent."""
        total = self.counts.sum()
        return float(np.trace(self.counts) / total * 100) if total else float("nan")
