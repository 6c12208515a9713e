"""From logits to a label map of the picture's size."""

import torch
from torch import Tensor

# Output pixels times categories in one band: 16 million, 64 MB for each temporary.
BAND_ELEMENTS = 16_000_000


def source_coordinates(length: int, grid: int) -> Tensor:
    """Where the centres of `length` output pixels lie among `grid` input pixels: half-pixel centres, clamped.

    Returns:
        float32 (length,), 0 to grid - 1.
    """
    centres = (torch.arange(length, dtype=torch.float64) + 0.5) * (grid / length) - 0.5
    return centres.clamp(0, grid - 1).to(torch.float32)


def lerp_axis(values: Tensor, coordinates: Tensor, axis: int) -> Tensor:
    """Linear interpolation of `values` at `coordinates` (n,) along `axis`, whose length becomes n."""
    # Coordinates are not negative, so the cast to integers is their floor.
    low = coordinates.to(torch.int64)
    high = (low + 1).clamp(max=values.shape[axis] - 1)
    shape = [1] * values.ndim
    shape[axis] = -1
    share = (coordinates - low).reshape(shape).to(values.dtype)
    first = values.index_select(axis, low)
    return first + (values.index_select(axis, high) - first) * share


def label_band(logits: Tensor, kept: Tensor, rows: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
    """Probabilities, bilinear to the wanted rows and columns, and the best category at each pixel.

    Args:
        logits: (K, h, w).
        kept: int64 (K,), the category each of them stands for.
        rows: float32 (R,), source coordinates of the output rows.
        columns: float32 (W,), source coordinates of the output columns.

    Returns:
        Labels, int64 (R, W), and their probabilities, float32 (R, W).
    """
    probabilities = torch.sigmoid(logits)
    banded = lerp_axis(lerp_axis(probabilities, rows, 1), columns, 2)
    scores, best = banded.max(0)
    return kept[best], scores


def label_map(logits: Tensor, kept: Tensor, height: int, width: int) -> Tensor:
    """Labels of a whole picture, made band by band so that memory stays bounded.

    Args:
        logits: (K, h, w).
        kept: int64 (K,).
        height: rows of the picture.
        width: columns of the picture.

    Returns:
        int64 (height, width).
    """
    rows = source_coordinates(height, logits.shape[1]).to(logits.device)
    columns = source_coordinates(width, logits.shape[2]).to(logits.device)
    step = max(1, BAND_ELEMENTS // (logits.shape[0] * width))
    return torch.cat([label_band(logits, kept, band, columns)[0] for band in rows.split(step)])
