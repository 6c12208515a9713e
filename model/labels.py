"""Pixels in and labels out: the normalised input, votes and rejection, label maps of the image's size."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ..host import label_bands, source_coordinates
from ..stages import VOTE_RANKS

# Of RGB from 0 to 255: CLIP's mean and standard deviation times 255.
PIXEL_MEAN = (122.7709383, 116.7460125, 104.09373615)
PIXEL_STD = (68.5005327, 66.6321579, 70.3231630)
# Below every logit, and still a finite number in half precision.
LOWEST = -60000.0


def to_pixels(images: Tensor, size: int) -> Tensor:
    """Normalise and resize as published: bilinear, half-pixel centres, no antialiasing, aspect not kept.

    Args:
        images: RGB, 0-255, uint8, (B, H, W, 3).
        size: side S of the square in pixels.

    Returns:
        float32 (B, 3, S, S).
    """
    values = images.to(torch.float32)
    mean = torch.tensor(PIXEL_MEAN, device=values.device)
    std = torch.tensor(PIXEL_STD, device=values.device)
    normalised = ((values - mean) / std).permute(0, 3, 1, 2)
    return F.interpolate(normalised, size=(size, size), mode="bilinear", align_corners=False)


def vote_table(logits: Tensor, alive: Tensor | None = None) -> Tensor:
    """Count, for each of the first `VOTE_RANKS` ranks, the pixels at which each category holds it.

    The category axis is padded by `VOTE_RANKS` very low rows, so that fewer categories rank as well; a rank
    held by a padding row counts for no category. Indices are compared with 0..T-1, which unlike a comparison
    with the last rank's value gives every pixel exactly one holder per rank.

    Args:
        logits: (T, h, w).
        alive: (T,), False for categories whose logits are `LOWEST` everywhere and that get no vote even where
            fewer than `VOTE_RANKS` others are there; None means all are alive.

    Returns:
        int32 (VOTE_RANKS, T).
    """
    flat = logits.flatten(1)
    padding = flat.new_full((VOTE_RANKS, flat.shape[1]), LOWEST)
    holders = torch.cat([flat, padding]).topk(VOTE_RANKS, dim=0).indices
    categories = torch.arange(flat.shape[0], device=flat.device)
    votes = (holders.unsqueeze(-1) == categories).sum(1, dtype=torch.int32)
    return votes if alive is None else votes * alive.to(torch.int32)


def survivors(votes: Tensor, k: int) -> Tensor:
    """The published rejection: the categories among the first `k` ranks at some pixel.

    Args:
        votes: (VOTE_RANKS, T) of `vote_table`.
        k: 1 to `VOTE_RANKS`.

    Returns:
        int64 (K,), increasing.
    """
    return votes[:k].sum(0).nonzero().squeeze(1)


def label_map(logits: Tensor, kept: Tensor, height: int, width: int) -> Tensor:
    """Labels of a whole image, computed band by band so that memory stays bounded.

    Args:
        logits: (K, h, w).
        kept: int64 (K,), the category that each of them stands for.
        height: rows of the image.
        width: columns of the image.

    Returns:
        int64 (height, width).
    """
    rows = torch.from_numpy(source_coordinates(logits.shape[1], height)).to(logits.device)
    columns = torch.from_numpy(source_coordinates(logits.shape[2], width)).to(logits.device)
    labels = kept.new_empty(height, width)
    for down, across in label_bands(height, width, logits.shape[0]):
        labels[down, across] = label_band(logits, kept, rows[down], columns[across])[0]
    return labels


def label_band(logits: Tensor, kept: Tensor, rows: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
    """Resize the probabilities bilinearly to the given rows and columns, and find the best one at each pixel.

    Args:
        logits: (K, h, w).
        kept: int64 (K,), the category that each of them stands for.
        rows: float32 (R,), `source_coordinates` of the output rows.
        columns: float32 (Q,), those of the output columns.

    Returns:
        Labels, int64 (R, Q), and their probabilities, float32 (R, Q).
    """
    probabilities = torch.sigmoid(logits)
    down, across = lerp_weights(rows, logits.shape[1]), lerp_weights(columns, logits.shape[2])
    scores, best = (down @ probabilities @ across.T).max(0)
    return kept[best], scores


def lerp_weights(coordinates: Tensor, grid: int) -> Tensor:
    """Linear interpolation as a matrix: weight[i, j] = max(0, 1 - |coordinate i - j|).

    At most two entries of a row are not zero. A matrix product reads the values in order, which gathering
    the two neighbours of every output pixel does not.

    Args:
        coordinates: (n,), 0 to grid - 1.
        grid: number of input pixels.

    Returns:
        (n, grid).
    """
    positions = torch.arange(grid, dtype=coordinates.dtype, device=coordinates.device)
    return (1 - (coordinates.unsqueeze(1) - positions).abs()).clamp(min=0)


def label_tile(logits: Tensor, kept: Tensor, rows: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
    """As `label_band`, by gathering the two neighbours of every output row and column, for GPUs.

    Of a large image two matrix products are hundreds of GFLOP, nearly all of them with weights of zero.

    Args:
        logits: (K, h, w).
        kept: int64 (K,), the category, below 2^16, that each of them stands for.
        rows: float32 (R,), `source_coordinates` of the output rows.
        columns: float32 (Q,), those of the output columns.

    Returns:
        Labels as low and high byte, uint8 (R, Q, 2), and their probabilities, float32 (R, Q).
    """
    maps = lerp(lerp(torch.sigmoid(logits), rows, axis=1), columns, axis=2)
    scores, best = maps.max(0)
    return F.embedding(best, low_and_high_byte(kept)).to(torch.uint8), scores


def lerp(values: Tensor, coordinates: Tensor, axis: int) -> Tensor:
    """Linear interpolation along one axis of (K, h, w).

    Args:
        values: to interpolate.
        coordinates: float32 (n,), 0 to the size of the axis - 1.
        axis: 1 or 2.

    Returns:
        As `values`, with n in the place of the size of the axis.
    """
    # The cast cuts off the fraction; ONNX's Floor is slow in some engines.
    before = coordinates.to(torch.int64)
    after = (before + 1).clamp(max=values.shape[axis] - 1)
    weights = (coordinates - before.to(coordinates.dtype)).unsqueeze(1 if axis == 1 else 0)
    return values.index_select(axis, before) * (1 - weights) + values.index_select(axis, after) * weights


def low_and_high_byte(numbers: Tensor) -> Tensor:
    """The low and the high byte, float32 (K, 2), of integers (K,) from 0 to 2^16 - 1."""
    exact = numbers.to(torch.float32)
    high = (exact / 256).to(torch.int64).to(torch.float32)
    return torch.stack([exact - 256 * high, high], dim=1)
