"""Masks as compressed run lengths in COCO's format, which pycocotools reads."""

from collections.abc import Iterator
from itertools import pairwise

import numpy as np

# The first of the 64 characters that stand for six bits each: five of a number, and whether more follow.
_FIRST_CHARACTER = 48


def label_runs(labels: np.ndarray) -> Iterator[tuple[int, str]]:
    """The index and the compressed runs of every label in a map, by rising index.

    `labels` are of any integer type, (H, W). Runs go down the columns, as COCO's do.
    """
    flat = labels.T.ravel()
    starts = np.concatenate([[0], np.flatnonzero(flat[1:] != flat[:-1]) + 1])
    ends = np.append(starts[1:], flat.size)
    values = flat[starts]
    # The segments of each label, one label after another.
    order = np.argsort(values, kind="stable")
    first = np.flatnonzero(np.diff(values[order], prepend=-1, append=-1))
    for start, end in pairwise(first):
        segments = order[start:end]
        yield int(values[segments[0]]), _compressed(_counts(starts[segments], ends[segments], flat.size))


def _counts(starts: np.ndarray, ends: np.ndarray, size: int) -> np.ndarray:
    """Lengths of the runs outside and inside a mask in turn, beginning outside, from the runs inside it."""
    edges = np.stack([starts, ends], axis=1).ravel()
    counts = np.diff(edges, prepend=0)
    return counts if edges[-1] == size else np.append(counts, size - edges[-1])


def _compressed(counts: np.ndarray) -> str:
    """Each count from the fourth on as the difference to the last but one, in signed groups of five bits."""
    values = counts.astype(np.int64)
    values[3:] -= counts[1:-2]
    groups = []
    present = np.ones(len(values), dtype=bool)
    while present.any():
        low = values & 31
        values = values >> 5
        # The number ends where the rest only repeats the sign.
        more = present & (values != np.where(low & 16, -1, 0))
        groups.append(np.where(present, low + 32 * more + _FIRST_CHARACTER, 0))
        present = more
    characters = np.stack(groups, axis=1).ravel()
    return characters[characters > 0].astype(np.uint8).tobytes().decode("ascii")
