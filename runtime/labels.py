"""Label map and scores at any output size, in bands so that memory stays bounded."""

from collections.abc import Iterator

import numpy as np

from ..engines.engine import Engine, Value
from ..engines.profiles import BAND_SIDE, label_rows

# Values of the up-sampled logits in memory at once: 64 MB in float32.
MAX_BAND_VALUES = 16_000_000


def source_coordinates(size: int, output_size: int) -> np.ndarray:
    """Where output pixel centres fall in a map of `size` pixels, float32 (output_size,).

    Bilinear with half-pixel centres, as PyTorch's `interpolate(align_corners=False)`:
    clamp((i + 0.5) * size / output_size - 0.5, 0, size - 1).
    """
    centres = (np.arange(output_size) + 0.5) * (size / output_size) - 0.5
    return centres.clip(0, size - 1).astype(np.float32)


def label_map(
    engine: Engine, logits: Value, kept_ids: np.ndarray, height: int, width: int
) -> tuple[np.ndarray, np.ndarray]:
    """Labels uint16 and scores float32, both (height, width), from logits (K', h, w).

    `engine` runs the stage `label`. Labels are entries of `kept_ids`, int64 (K,), K <= K'; scores are
    probabilities. Maps in `logits` beyond K are padding and never win.
    """
    kept = np.pad(kept_ids, (0, logits.shape[0] - len(kept_ids)))
    labels = np.empty((height, width), dtype=np.uint16)
    scores = np.empty((height, width), dtype=np.float32)
    rows = source_coordinates(logits.shape[1], height)
    columns = source_coordinates(logits.shape[2], width)
    for down, across in _bands(height, width, len(kept)):
        outputs = engine.run({"logits": logits, "kept": kept, "rows": rows[down], "columns": columns[across]})
        labels[down, across] = outputs["labels"]
        scores[down, across] = outputs["scores"]
    return labels, scores


def _bands(height: int, width: int, categories: int) -> Iterator[tuple[slice, slice]]:
    """Cut an image into parts of bounded size: bands of rows, or parts of a row that is too wide."""
    pixels = max(1, MAX_BAND_VALUES // categories)
    columns = min(width, pixels, BAND_SIDE)
    rows = min(pixels // columns, label_rows(categories))
    for top in range(0, height, rows):
        for left in range(0, width, columns):
            yield slice(top, top + rows), slice(left, left + columns)
