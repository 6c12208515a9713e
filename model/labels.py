"""Between pixels and labels: the normalised input, vote tables, and label maps of the image's size."""

import torch
import torch.nn.functional as F
from torch import Tensor

PIXEL_MEAN = (122.7709383, 116.7460125, 104.09373615)
PIXEL_STD = (68.5005327, 66.6321579, 70.3231630)


def to_pixels(images: Tensor, size: int) -> Tensor:
    """Normalise and resize as published: bilinear, half-pixel centres, no antialiasing, aspect not kept.

    Args:
        images: RGB, 0-255, uint8, (B, H, W, 3).
        size: side S of the square.

    Returns:
        float32 (B, 3, S, S).
    """
    values = images.to(torch.float32)
    mean = torch.tensor(PIXEL_MEAN, device=values.device)
    std = torch.tensor(PIXEL_STD, device=values.device)
    normalised = ((values - mean) / std).permute(0, 3, 1, 2)
    return F.interpolate(normalised, size=(size, size), mode="bilinear", align_corners=False)


VOTE_RANKS = 8
# Below every logit, and still a finite number in half precision.
LOWEST = -60000.0


def vote_table(logits: Tensor, alive: Tensor | None = None) -> Tensor:
    """Count, for each of the first 8 ranks, the pixels at which each category holds it.

    The category axis is padded by 8 very low rows, so that fewer than 8 categories rank as well; a rank taken
    by a padding row counts for nobody. Indices are compared with 0..T-1, which unlike a comparison with the
    8th value gives every pixel exactly one holder per rank.

    Args:
        logits: (T, h, w).
        alive: (T,), False for categories whose logits are `LOWEST` everywhere and that get no vote even where
            fewer than 8 others are there; None means all are alive.

    Returns:
        int32 (8, T).
    """
    flat = logits.flatten(1)
    padding = flat.new_full((VOTE_RANKS, flat.shape[1]), LOWEST)
    holders = torch.cat([flat, padding]).topk(VOTE_RANKS, dim=0).indices
    categories = torch.arange(flat.shape[0], device=flat.device)
    votes = (holders.unsqueeze(-1) == categories).sum(1, dtype=torch.int32)
    return votes if alive is None else votes * alive.to(torch.int32)


def survivors(votes: Tensor, k: int) -> Tensor:
    """The published rejection: categories among the first `k` ranks at some pixel.

    Args:
        votes: (8, T) of `vote_table`.
        k: 1 to 8.

    Returns:
        int64 (K,), increasing.
    """
    return votes[:k].sum(0).nonzero().squeeze(1)


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
