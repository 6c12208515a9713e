"""mIoU against a count by sets."""

import numpy as np
import pytest

from sed_trt.benchmarks.miou import Confusion


def iou_by_sets(truth: np.ndarray, predicted: np.ndarray, category: int) -> float:
    """Intersection over union as it is defined, on the counted pixels."""
    is_true, is_given = truth == category, predicted == category
    return float((is_true & is_given).sum() / (is_true | is_given).sum())


@pytest.mark.parametrize("categories", [3, 300])
def test_agrees_with_sets_over_several_pictures(categories: int) -> None:
    source = np.random.default_rng(0)
    confusion = Confusion(categories)
    truths = source.integers(0, categories, (4, 60, 50)).astype(np.uint16)
    predictions = np.where(
        source.random(truths.shape) < 0.5, truths, source.integers(0, categories, truths.shape)
    )
    for truth, predicted in zip(truths, predictions, strict=True):
        confusion.add(truth, predicted)
    expected = [iou_by_sets(truths, predictions, category) for category in range(categories)]
    assert confusion.iou() == pytest.approx(expected)
    assert confusion.miou() == pytest.approx(100 * np.mean(expected))
    assert confusion.pixel_accuracy() == pytest.approx(100 * (truths == predictions).mean())


def test_ignored_pixels_count_for_nothing() -> None:
    confusion = Confusion(2)
    confusion.add(np.array([[0, 1, 255]], dtype=np.uint16), np.array([[0, 1, 0]]))
    assert confusion.miou() == 100


def test_only_occurring_categories_are_averaged() -> None:
    confusion = Confusion(4)
    confusion.add(np.array([[0, 0, 1, 1]]), np.array([[0, 0, 1, 2]]))
    assert confusion.miou() == pytest.approx(75)
    assert confusion.miou([1, 2]) == pytest.approx(50)
    assert np.isnan(confusion.miou([3]))


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="from 0 to 2, expected 0 to 1"):
        Confusion(2).add(np.array([[0, 1]]), np.array([[0, 2]]))
    with pytest.raises(ValueError, match=r"\(1, 2\) but predictions \(2, 1\)"):
        Confusion(2).add(np.array([[0, 1]]), np.array([[0], [1]]))
