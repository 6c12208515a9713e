"""Results made by hand, with no network behind them."""

import numpy as np

from sed_trt.runtime import Result


def result_of(labels: np.ndarray, names: tuple[str, ...]) -> Result:
    """A result that is all in its labels, on a grey image."""
    image = np.full((*labels.shape, 3), 100, dtype=np.uint8)
    count = len(names)
    kept = (count, count, count)
    scores = np.ones(labels.shape, dtype=np.float32)
    return Result(labels.astype(np.uint16), scores, names, kept, np.arange(count), {"label": 1.0}, image)


HALVES = result_of(np.repeat([[2, 0, 0, 0]], 100, axis=0).repeat(100, axis=1), ("sky", "tree", "Bäckerei 木"))


def scores_of(result: Result) -> np.ndarray:
    """Its scores, which must be there."""
    assert result.scores is not None
    return result.scores
