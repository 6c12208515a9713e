"""What is counted while images are labelled, and the figures that follow from the sums.

All counts are integers, so their sums do not depend on the order of the images. With n_ij pixels of the true
category i labelled j, t_i = Σ_j n_ij and p_i = Σ_j n_ji:

- IoU of i: n_ii / (t_i + p_i - n_ii). Everingham et al., "The PASCAL Visual Object Classes (VOC) Challenge",
  IJCV 2010.
- mIoU, its mean over categories; fwIoU, Σ_i t_i IoU_i / Σ_i t_i; mean accuracy, the mean of n_ii / t_i; pixel
  accuracy, Σ_i n_ii / Σ_i t_i. Long, Shelhamer and Darrell, "Fully Convolutional Networks for Semantic
  Segmentation", CVPR 2015, section 5.

As in detectron2's `SemSegEvaluator`, one matrix is summed over the whole set, and means are over the
categories with t_i > 0.
"""

from collections.abc import Iterable, Sequence

import msgspec
import numpy as np

from ...stages import REJECTION_POINTS


def pair_counts(truth: np.ndarray, predicted: np.ndarray, categories: int) -> tuple[list[int], list[int]]:
    """Which pairs of a true and a predicted category occur in an image, and at how many pixels.

    Args:
        truth: integers (H, W); values outside 0..T-1 are ignored pixels.
        predicted: integers 0..T-1, (H, W).
        categories: T.

    Returns:
        N numbers of pairs, rising, true category times T plus predicted one; and the pixels of each pair.

    Raises:
        ValueError: the shapes differ, or a prediction is out of range.
    """
    if truth.shape != predicted.shape:
        raise ValueError(f"labels are {truth.shape} but predictions {predicted.shape}")
    true = truth.astype(np.int64).ravel()
    label = predicted.astype(np.int64).ravel()
    if label.min(initial=0) < 0 or label.max(initial=0) >= categories:
        limits = f"from {label.min()} to {label.max()}"
        raise ValueError(f"predictions reach {limits}, expected 0 to {categories - 1}")
    scored = (true >= 0) & (true < categories)
    counts = np.bincount(true[scored] * categories + label[scored])
    pairs = np.flatnonzero(counts)
    return pairs.tolist(), counts[pairs].tolist()


class Confusion:
    """The confusion matrix of a set.

    Attributes:
        counts: int64 (T, T), pixels by true category (rows) and predicted one (columns).
    """

    def __init__(self, categories: int) -> None:
        self.counts = np.zeros((categories, categories), dtype=np.int64)

    def add_pairs(self, pairs: Sequence[int], pixels: Sequence[int]) -> None:
        """Add the result of `pair_counts` for the same number of categories."""
        self.counts.reshape(-1)[np.asarray(pairs, dtype=np.int64)] += np.asarray(pixels, dtype=np.int64)

    def occurring(self) -> np.ndarray:
        """Which categories have pixels, bool (T,)."""
        return self.counts.sum(1) > 0

    def iou(self) -> np.ndarray:
        """IoU of each category, float64 (T,); NaN where it neither occurs nor is predicted."""
        hit = np.diag(self.counts).astype(np.float64)
        union = self.counts.sum(0) + self.counts.sum(1) - hit
        return np.divide(hit, union, out=np.full_like(hit, np.nan), where=union > 0)

    def accuracy(self) -> np.ndarray:
        """Share of each category's pixels that are labelled with it, float64 (T,); NaN where it has none."""
        hit, pixels = np.diag(self.counts).astype(np.float64), self.counts.sum(1)
        return np.divide(hit, pixels, out=np.full_like(hit, np.nan), where=pixels > 0)

    def miou(self, categories: Iterable[int] | None = None) -> float:
        """Mean IoU, in percent, of those of `categories` that have pixels; None means all."""
        chosen = np.zeros(len(self.counts), dtype=bool)
        chosen[list(range(len(self.counts)) if categories is None else categories)] = True
        return _mean_percent(self.iou()[self.occurring() & chosen])

    def fwiou(self) -> float:
        """Mean of the IoU weighted by the categories' pixels, in percent."""
        occurring, pixels = self.occurring(), self.counts.sum(1)
        weighted = (self.iou() * pixels)[occurring]
        return float(weighted.sum() / pixels.sum() * 100) if len(weighted) else float("nan")

    def mean_accuracy(self) -> float:
        """Mean accuracy of the categories that have pixels, in percent."""
        return _mean_percent(self.accuracy()[self.occurring()])

    def pixel_accuracy(self) -> float:
        """Share of the scored pixels that are labelled with their true category, in percent."""
        total = self.counts.sum()
        return float(np.trace(self.counts) / total * 100) if total else float("nan")


def _mean_percent(values: np.ndarray) -> float:
    return float(values.mean() * 100) if len(values) else float("nan")


class PredictionCounts(msgspec.Struct):
    """What is counted of one image as one source labels it under one policy.

    Attributes:
        pairs: which pairs of a true and a predicted category occur, see `pair_counts`.
        pixels: of each pair.
        kept: categories alive after each rejection point.
    """

    pairs: list[int]
    pixels: list[int]
    kept: list[int]


class ImageCounts(msgspec.Struct):
    """What is counted of one image.

    Attributes:
        position: its place among the chosen images of the set.
        stamps: of its files when it was counted, see `ChosenImages.stamps`.
        pixels: of the image.
        equal: for each policy the pixels that all sources label equally.
        predictions: by policy, then by source.
    """

    position: int
    stamps: list[int]
    pixels: int
    equal: list[int]
    predictions: list[list[PredictionCounts]]


class Totals:
    """Sums over images for one source under one policy.

    Attributes:
        confusion: of the scored categories.
        kept: int64 (3,), sums of the categories alive after each rejection point.
        images: how many were added.
    """

    def __init__(self, categories: int) -> None:
        self.confusion = Confusion(categories)
        self.kept = np.zeros(len(REJECTION_POINTS), dtype=np.int64)
        self.images = 0

    def add(self, pairs: Sequence[int], pixels: Sequence[int], kept: Sequence[int]) -> None:
        """Add one image; the arguments are those of `PredictionCounts`."""
        self.confusion.add_pairs(pairs, pixels)
        self.kept += np.asarray(kept)
        self.images += 1

    def mean_kept(self) -> tuple[float, ...]:
        """Mean number of categories alive after each rejection point."""
        return tuple(float(total) / self.images for total in self.kept)


class SetCounts:
    """Sums over the images of a set.

    Attributes:
        done: bool (N,), which of the chosen images were added.
        totals: by policy, then by source.
        equal: int64, for each policy the pixels that all sources label equally.
        pixels: of all images.
    """

    def __init__(self, images: int, categories: int, policies: int, sources: int) -> None:
        self.done = np.zeros(images, dtype=bool)
        self.totals = [[Totals(categories) for _ in range(sources)] for _ in range(policies)]
        self.equal = np.zeros(policies, dtype=np.int64)
        self.pixels = 0

    def add(self, image: ImageCounts) -> None:
        """Add one image, unless it was added before: two machines may have counted the same one."""
        if self.done[image.position]:
            return
        self.done[image.position] = True
        self.equal += np.asarray(image.equal)
        self.pixels += image.pixels
        for totals, predictions in zip(self.totals, image.predictions, strict=True):
            for total, counts in zip(totals, predictions, strict=True):
                total.add(counts.pairs, counts.pixels, counts.kept)

    def agreement(self, policy: int) -> float:
        """Pixel agreement of the sources in percent: the share of pixels that all label equally."""
        return float(100 * self.equal[policy] / self.pixels)
