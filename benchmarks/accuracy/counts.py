"""What is counted while the pictures of a data set are labelled: integers, so that the order is no matter."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from .predictors import Prediction


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


POINTS = 3


@dataclass(frozen=True, eq=False)
class Labelled:
    """One picture as one predictor labelled it: label pairs as `pair_counts` gives them, categories alive."""

    pairs: np.ndarray
    counts: np.ndarray
    kept: tuple[int, ...]

    @classmethod
    def of(cls, truth: np.ndarray, prediction: Prediction, scored_as: np.ndarray, classes: int) -> "Labelled":
        """Score a prediction.

        Args:
            truth: true classes, integers (H, W); values outside 0..classes-1 are ignored.
            prediction: labels (H, W) that index the names.
            scored_as: integers (T,), the class of each name.
            classes: how many there are.
        """
        return cls(*pair_counts(truth, scored_as[prediction.labels], classes), prediction.kept)


@dataclass(frozen=True, eq=False)
class PictureCounts:
    """One picture under every policy.

    Attributes:
        position: its place among the chosen pictures of the set.
        labelled: for each policy what each source gave.
        alike: for each policy the pixels that all sources label alike.
        pixels: of the picture.
    """

    position: int
    labelled: tuple[tuple[Labelled, ...], ...]
    alike: tuple[int, ...]
    pixels: int


class Totals:
    """Sums of one predictor over pictures.

    Attributes:
        confusion: of classes.
        kept: int64 (3,), sums of the categories alive after each rejection point.
        pictures: how many were added.
    """

    def __init__(self, classes: int) -> None:
        self.confusion = Confusion(classes)
        self.kept = np.zeros(POINTS, dtype=np.int64)
        self.pictures = 0

    def add(self, labelled: Labelled) -> None:
        """Count one picture."""
        self.confusion.add_pairs(labelled.pairs, labelled.counts)
        self.kept += labelled.kept
        # Last, so that an interrupted picture is none.
        self.pictures += 1

    def mean_kept(self) -> tuple[float, ...]:
        """Mean number of categories alive after each rejection point."""
        return tuple(float(total) / self.pictures for total in self.kept)


class SetCounts:
    """Sums over the pictures of a set that are done, for every policy and source.

    Attributes:
        done: bool (N,), which of the chosen pictures were added.
        totals: for each policy those of each source.
    """

    def __init__(self, pictures: int, classes: int, policies: int, sources: int) -> None:
        self.done = np.zeros(pictures, dtype=bool)
        self.totals = [[Totals(classes) for _ in range(sources)] for _ in range(policies)]
        self._alike = np.zeros(policies, dtype=np.int64)
        self._pixels = 0

    def add(self, picture: PictureCounts) -> None:
        """Count one picture.

        Raises:
            ValueError: it was counted before.
        """
        if self.done[picture.position]:
            raise ValueError(f"picture {picture.position} is counted twice")
        # The totals come last: `is_whole` sees by them that Ctrl-C came in between.
        self.done[picture.position] = True
        self._alike += picture.alike
        self._pixels += picture.pixels
        for totals, labelled in zip(self.totals, picture.labelled, strict=True):
            for total, each in zip(totals, labelled, strict=True):
                total.add(each)

    def is_whole(self) -> bool:
        """Whether no picture was added by half."""
        done = int(self.done.sum())
        return all(total.pictures == done for totals in self.totals for total in totals)

    def remaining(self) -> Sequence[int]:
        """Positions of the pictures that are not done, rising."""
        return [int(position) for position in np.flatnonzero(~self.done)]

    def agreement(self, policy: int) -> float:
        """Percent of the pixels that all sources label alike."""
        return float(100 * self._alike[policy] / self._pixels)

    def arrays(self) -> dict[str, np.ndarray]:
        """Everything, to be kept in a file."""
        flat = [total for totals in self.totals for total in totals]
        return {
            "done": self.done,
            "confusion": np.stack([total.confusion.counts for total in flat]),
            "kept": np.stack([total.kept for total in flat]),
            "alike": self._alike,
            "pixels": np.array(self._pixels, dtype=np.int64),
        }

    def restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Take over what `arrays` gave for a set of the same size, policies and sources.

        Raises:
            KeyError, ValueError: they are not of that form.
        """
        found = {name: np.asarray(arrays[name]) for name in self.arrays()}
        for name, empty in self.arrays().items():
            if found[name].shape != empty.shape or found[name].dtype != empty.dtype:
                raise ValueError(f"{name} is {found[name].dtype} {found[name].shape}")
        self.done, self._alike, self._pixels = found["done"], found["alike"], int(found["pixels"])
        flat = [total for totals in self.totals for total in totals]
        for total, counts, kept in zip(flat, found["confusion"], found["kept"], strict=True):
            total.confusion.counts, total.kept = counts, kept
            total.pictures = int(self.done.sum())
