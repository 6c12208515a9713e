"""Run lengths of label maps are those of pycocotools, byte for byte."""

import numpy as np
import pytest
from pycocotools import mask as coco

from sed_trt.runtime.rle import encode_labels


def expected(labels: np.ndarray) -> dict[int, str]:
    """What pycocotools writes."""
    masks = {int(index): np.asfortranarray(labels == index, np.uint8) for index in np.unique(labels)}
    return {index: coco.encode(mask)["counts"].decode() for index, mask in masks.items()}


def blocks(height: int, width: int, cell: int, count: int) -> np.ndarray:
    """Labels in square cells."""
    cells = np.random.default_rng(0).integers(0, count, (height // cell + 1, width // cell + 1))
    return cells.repeat(cell, axis=0).repeat(cell, axis=1)[:height, :width].astype(np.uint16)


@pytest.mark.parametrize(
    "labels",
    [
        np.zeros((1, 1), np.uint8),
        np.full((3, 5), 7, np.uint16),
        np.array([[0, 1], [1, 0]], np.uint8),
        blocks(37, 53, 1, 4),
        blocks(40, 61, 7, 300),
        blocks(37, 53, 1, 5),
        blocks(37, 53, 7, 300),
        blocks(500, 700, 90, 3),
        blocks(1, 200, 3, 4),
        blocks(200, 1, 3, 4),
        np.full((40, 30), 65534, np.uint16),
        # Long runs, whose counts take several groups, before and after short ones.
        np.where(np.arange(900 * 1200).reshape(900, 1200) % 100_003 < 7, 2, 40_000).astype(np.uint16),
    ],
)
def test_counts_are_those_of_pycocotools(labels: np.ndarray) -> None:
    encoded = encode_labels(labels)
    assert list(encoded) == sorted(set(labels.ravel().tolist()))
    assert encoded == expected(labels)
    for index, counts in encoded.items():
        decoded = coco.decode({"size": list(labels.shape), "counts": counts})
        assert np.array_equal(decoded.astype(bool), labels == index)


def test_pycocotools_decodes_to_the_label_map() -> None:
    labels = blocks(45, 33, 5, 9)
    decoded = np.full(labels.shape, 99)
    for index, counts in encode_labels(labels).items():
        decoded[coco.decode({"size": list(labels.shape), "counts": counts}).astype(bool)] = index
    np.testing.assert_array_equal(decoded, labels)
