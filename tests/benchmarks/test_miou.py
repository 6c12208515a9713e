"""mIoU against a count by sets, and all figures against scikit-learn."""

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, confusion_matrix, jaccard_score, recall_score

from sed_trt.benchmarks.accuracy.counts import Confusion, pair_counts


def count(confusion: Confusion, truth: np.ndarray, predicted: np.ndarray) -> None:
    """Count one image."""
    confusion.add_pairs(*pair_counts(truth, predicted, len(confusion.counts)))


def iou_by_sets(truth: np.ndarray, predicted: np.ndarray, category: int) -> float:
    """Intersection over union as it is defined, on the counted pixels."""
    is_true, is_given = truth == category, predicted == category
    return float((is_true & is_given).sum() / (is_true | is_given).sum())


@pytest.mark.parametrize("categories", [3, 300])
def test_agrees_with_sets_over_several_images(categories: int) -> None:
    source = np.random.default_rng(0)
    confusion = Confusion(categories)
    truths = source.integers(0, categories, (4, 60, 50)).astype(np.uint16)
    predictions = np.where(
        source.random(truths.shape) < 0.5, truths, source.integers(0, categories, truths.shape)
    )
    for truth, predicted in zip(truths, predictions, strict=True):
        count(confusion, truth, predicted)
    expected = [iou_by_sets(truths, predictions, category) for category in range(categories)]
    assert confusion.iou() == pytest.approx(expected)
    assert confusion.miou() == pytest.approx(100 * np.mean(expected))
    assert confusion.pixel_accuracy() == pytest.approx(100 * (truths == predictions).mean())


def test_ignored_pixels_count_for_nothing() -> None:
    confusion = Confusion(2)
    count(confusion, np.array([[0, 1, 255]], dtype=np.uint16), np.array([[0, 1, 0]]))
    assert confusion.miou() == 100


def test_only_occurring_categories_are_averaged() -> None:
    confusion = Confusion(4)
    count(confusion, np.array([[0, 0, 1, 1]]), np.array([[0, 0, 1, 2]]))
    assert confusion.miou() == pytest.approx(75)
    assert confusion.miou([1, 2]) == pytest.approx(50)
    assert np.isnan(confusion.miou([3]))


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="from 0 to 2, expected 0 to 1"):
        pair_counts(np.array([[0, 1]]), np.array([[0, 2]]), 2)
    with pytest.raises(ValueError, match=r"\(1, 2\) but predictions \(2, 1\)"):
        pair_counts(np.array([[0, 1]]), np.array([[0], [1]]), 2)


@pytest.mark.parametrize(("categories", "occurring"), [(5, 5), (20, 12), (847, 400)])
def test_agrees_with_scikit_learn(categories: int, occurring: int) -> None:
    source = np.random.default_rng(categories)
    truths = source.integers(-1, occurring, (3, 70, 90), dtype=np.int32)
    given = np.where(source.random(truths.shape) < 0.6, truths, source.integers(0, categories, truths.shape))
    predictions = np.where(given < 0, 0, given).astype(np.uint16)
    confusion = Confusion(categories)
    for truth, predicted in zip(truths, predictions, strict=True):
        count(confusion, truth, predicted)
    true, predicted = truths[truths >= 0], predictions[truths >= 0]
    labels = np.unique(true)
    assert np.array_equal(confusion.counts, confusion_matrix(true, predicted, labels=np.arange(categories)))
    expected = {
        "miou": jaccard_score(true, predicted, labels=labels, average="macro"),
        "fwiou": jaccard_score(true, predicted, labels=labels, average="weighted"),
        "mean_accuracy": recall_score(true, predicted, labels=labels, average="macro"),
        "pixel_accuracy": accuracy_score(true, predicted),
    }
    for name, value in expected.items():
        assert getattr(confusion, name)() == pytest.approx(100 * value), name


def test_without_a_counted_pixel_there_are_no_figures() -> None:
    confusion = Confusion(3)
    count(confusion, np.full((2, 2), -1), np.zeros((2, 2), dtype=np.uint16))
    for name in ("miou", "fwiou", "mean_accuracy", "pixel_accuracy"):
        assert np.isnan(getattr(confusion, name)()), name
    assert np.isnan(confusion.accuracy()).all()
