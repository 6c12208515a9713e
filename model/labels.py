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


def lerp_weights(coordinates: Tensor, grid: int) -> Tensor:
    """Linear interpolation as a matrix: weight[i, j] = max(0, 1 - |coordinate i - j|).

    At most two entries of a row are not zero. A matrix product reads the values in order, which gathering
    the two neighbours of every output pixel does not.

    Returns:
        (n, grid) from (n,).
    """
    positions = torch.arange(grid, dtype=coordinates.dtype, device=coordinates.device)
    return (1 - (coordinates.unsqueeze(1) - positions).abs()).clamp(min=0)


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
    down, across = lerp_weights(rows, logits.shape[1]), lerp_weights(columns, logits.shape[2])
    banded = down @ probabilities @ across.T
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
