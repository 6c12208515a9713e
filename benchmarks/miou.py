"""Intersection over union and accuracies, from counts of label pairs."""

from collections.abc import Iterable

import numpy as np


def pair_counts(truth: np.ndarray, predicted: np.ndarray, categories: int) -> tuple[np.ndarray, np.ndarray]:
    """Which pairs of a true and a predicted category one picture holds, and how often.

    Args:
        truth: integers (H, W); values outside 0..T-1 are ignored pixels.
        predicted: integers 0..T-1, (H, W).
        categories: T.

    Returns:
        int64 (N,), true category times T plus predicted one, rising; and int64 (N,), the pixels of each pair.

    Raises:
        ValueError: the shapes differ, or a prediction is out of range.
    """
    if truth.shape != predicted.shape:
        raise ValueError(f"labels are {truth.shape} but predictions {predicted.shape}")
    true = truth.astype(np.int64).ravel()
    given = predicted.astype(np.int64).ravel()
    if given.min(initial=0) < 0 or given.max(initial=0) >= categories:
        found = f"from {given.min()} to {given.max()}"
        raise ValueError(f"predictions reach {found}, expected 0 to {categories - 1}")
    counted = (true >= 0) & (true < categories)
    counts = np.bincount(true[counted] * categories + given[counted])
    pairs = np.flatnonzero(counts)
    return pairs.astype(np.int64), counts[pairs].astype(np.int64)


class Confusion:
    """Counts, over a whole set, how often each true category was given each predicted one.

    Attributes:
        counts: int64 (T, T), rows true, columns predicted.
    """

    def __init__(self, categories: int) -> None:
        self.counts = np.zeros((categories, categories), dtype=np.int64)

    def add_pairs(self, pairs: np.ndarray, counts: np.ndarray) -> None:
        """Add what `pair_counts` gave for as many categories."""
        self.counts.reshape(-1)[pairs] += counts

    def occurring(self) -> np.ndarray:
        """Which categories have pixels, bool (T,)."""
        return self.counts.sum(1) > 0

    def iou(self) -> np.ndarray:
        """IoU of each category, float64 (T,); NaN where it neither occurs nor is predicted."""
        hit = np.diag(self.counts).astype(np.float64)
        union = self.counts.sum(0) + self.counts.sum(1) - hit
        return np.divide(hit, union, out=np.full_like(hit, np.nan), where=union > 0)

    def accuracy(self) -> np.ndarray:
        """Share of each category's pixels that were given it, float64 (T,); NaN where it does not occur."""
        hit, pixels = np.diag(self.counts).astype(np.float64), self.counts.sum(1)
        return np.divide(hit, pixels, out=np.full_like(hit, np.nan), where=pixels > 0)

    def miou(self, categories: Iterable[int] | None = None) -> float:
        """Mean of the IoU, in percent, over those of `categories` that occur in the truth; None means all."""
        chosen = np.zeros(len(self.counts), dtype=bool)
        chosen[list(range(len(self.counts)) if categories is None else categories)] = True
        return _mean_percent(self.iou()[self.occurring() & chosen])

    def fwiou(self) -> float:
        """Mean of the IoU weighted by the categories' pixels, in percent: detectron2's fwIoU."""
        occurring, pixels = self.occurring(), self.counts.sum(1)
        weighted = (self.iou() * pixels)[occurring]
        return float(weighted.sum() / pixels.sum() * 100) if len(weighted) else float("nan")

    def mean_accuracy(self) -> float:
        """Mean of the accuracies of the categories that occur, in percent: detectron2's mACC."""
        return _mean_percent(self.accuracy()[self.occurring()])

    def pixel_accuracy(self) -> float:
        """Share of counted pixels given their true category, in percent: detectron2's pACC."""
        total = self.counts.sum()
        return float(np.trace(self.counts) / total * 100) if total else float("nan")


def _mean_percent(values: np.ndarray) -> float:
    return float(values.mean() * 100) if len(values) else float("nan")
