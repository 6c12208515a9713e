"""The cost map, and the scout that scores every category without making its 128 channels."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def cost_map(embed: Tensor, text: Tensor) -> Tensor:
    """Cosine between every position and every prompt.

    Args:
        embed: image embeddings, (B, C, h, w), of any length.
        text: unit vectors, (T, P, C) for all images or (B, T, P, C) for each its own.

    Returns:
        (B*T, P, h, w); categories stand in the batch axis.
    """
    height, width = embed.shape[-2:]
    positions = F.normalize(embed, dim=1).flatten(2)
    cosines = text.flatten(-3, -2) @ positions
    return cosines.reshape(-1, text.shape[-2], height, width)


def scout_kernel(conv1: nn.Conv2d, head0: nn.Conv2d) -> tuple[Tensor, Tensor]:
    """Fold head0 into conv1: both are linear with nothing between them.

    One output channel per tap (a, b) of head0, in row-major order:
    weight[a, b] = sum_o head0[o, a, b] * conv1[o], bias[a, b] = sum_o head0[o, a, b] * bias1[o].

    Args:
        conv1: 7x7, P to width channels, padding 3.
        head0: 3x3, width channels to 1, padding 1.

    Returns:
        Weight (9, P, 7, 7) and bias (9,).
    """
    taps = head0.weight[0].flatten(1).T
    weight = (taps @ conv1.weight.flatten(1)).unflatten(1, conv1.weight.shape[1:])
    assert conv1.bias is not None
    return weight, taps @ conv1.bias


def scout_logits(cost: Tensor, weight: Tensor, bias: Tensor, head_bias: Tensor) -> Tensor:
    """head0's map of every category, equal to head0(conv1(cost)) to rounding, borders included.

    Tap (a, b) of head0 reads channel (a, b) of the folded map, shifted: a fixed one-hot 3x3 convolution
    whose zero padding is head0's own.

    Args:
        cost: (T, P, h, w).
        weight: (9, P, 7, 7) of `scout_kernel`.
        bias: (9,) of `scout_kernel`.
        head_bias: (1,), head0's.

    Returns:
        (T, h, w).
    """
    per_tap = F.conv2d(cost, weight, bias, padding=3)
    one_hot = torch.eye(9, dtype=weight.dtype, device=weight.device).view(1, 9, 3, 3)
    return F.conv2d(per_tap, one_hot, head_bias, padding=1).squeeze(1)
