"""Run lengths against pycocotools."""

import numpy as np
import pytest
from pycocotools import mask

from sed_trt.serve.rle import label_runs

GENERATOR = np.random.default_rng(0)


def blocks(height: int, width: int, side: int, labels: int) -> np.ndarray:
    """A map of random labels in blocks of `side` pixels, uint16 (height, width)."""
    coarse = GENERATOR.integers(0, labels, (-(-height // side), -(-width // side)))
    return coarse.repeat(side, 0).repeat(side, 1)[:height, :width].astype(np.uint16)


@pytest.mark.parametrize(
    "labels",
    [
        blocks(37, 53, 1, 5),
        blocks(37, 53, 7, 300),
        blocks(500, 700, 90, 3),
        blocks(1, 200, 3, 4),
        blocks(200, 1, 3, 4),
        np.zeros((1, 1), dtype=np.uint16),
        np.full((40, 30), 65534, dtype=np.uint16),
        np.array([[0, 1], [1, 0]], dtype=np.uint16),
    ],
)
def test_runs_are_those_of_pycocotools(labels: np.ndarray) -> None:
    runs = dict(label_runs(labels))
    assert list(runs) == sorted(set(labels.ravel().tolist()))
    for label, counts in runs.items():
        member = labels == label
        expected = mask.encode(np.asfortranarray(member.astype(np.uint8)))
        assert counts == expected["counts"].decode()
        decoded = mask.decode({"size": list(labels.shape), "counts": counts})
        assert np.array_equal(decoded.astype(bool), member)
