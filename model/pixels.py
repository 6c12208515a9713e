"""From a picture of any size to the square, normalised input of the network."""

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
