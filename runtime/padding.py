"""Kept indices filled up to a size that the engines have met before."""

from collections.abc import Sequence

import numpy as np


def padded(kept: np.ndarray, buckets: Sequence[int] | None) -> np.ndarray:
    """Kept indices, int64 (K,), followed by -1 up to the smallest of the rising `buckets` that holds them.

    A GPU backend is slow the first time it meets a shape, and the stages take -1 for a category that is not
    there. Indices come back as they are where `buckets` is None or K is larger than the largest, which the
    engine then refuses with its own limit.
    """
    for size in buckets or ():
        if size >= len(kept):
            return np.pad(kept, (0, size - len(kept)), constant_values=-1)
    return kept
