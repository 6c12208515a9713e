"""The scout: head0's logits of every category straight from the cost map, without conv1's 128 channels."""

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Rows or columns of the cost map that conv1 reads for a position just outside the map.
REACH = 3
ALL = (0, 1, 2)


class Scout(nn.Module):
    """head0's logits of every category, equal to head0(conv1(cost)) to rounding, borders included.

    Inside the map, head0 after conv1 is one 9x9 convolution to a single channel. At the border head0 reads
    zeros, but the 9x9 convolution reads conv1's response outside the map. The contribution of those taps is
    subtracted from the first and last row and column, and added back once at the corners, where it was
    subtracted twice.
    """

    bias: Tensor

    def __init__(self, conv1: nn.Conv2d, head0: nn.Conv2d, side: int) -> None:
        """Fold the two convolutions for cost maps of h = w = `side`; gradients do not reach them."""
        super().__init__()
        weight, bias = tap_kernels(conv1, head0)
        self.inside = tap_convolution(weight, ALL, ALL, padding=(4, 4))
        self.top, self.bottom = (tap_convolution(weight, [a], ALL, padding=(2, 4)) for a in (0, 2))
        self.left, self.right = (tap_convolution(weight, ALL, [b], padding=(4, 2)) for b in (0, 2))
        self.corners = nn.ModuleList(
            tap_convolution(weight, [a], [b], padding=(2, 2)) for a in (0, 2) for b in (0, 2)
        )
        # conv1's bias as head0 sees it, which its zero padding cuts at the border.
        level = F.conv2d(weight.new_ones(1, 1, side, side), bias.view(1, 1, 3, 3), padding=1)
        self.register_buffer("bias", level + cast(Tensor, head0.bias).detach())

    def forward(self, cost: Tensor) -> Tensor:
        """Logits, (T, h, w), from the cost map, (T, P, h, w)."""
        first, last = slice(None, REACH), slice(-REACH, None)
        height, width = cost.shape[2:]
        logits = self.inside(cost) + self.bias
        rows = self.top(cost[:, :, first])[:, :, :1], self.bottom(cost[:, :, last])[:, :, -1:]
        columns = self.left(cost[..., first])[..., :1], self.right(cost[..., last])[..., -1:]
        corners = [
            layer(cost[:, :, down, across])[:, :, one, other]
            for layer, (down, one, across, other) in zip(
                self.corners,
                (
                    (first, slice(None, 1), first, slice(None, 1)),
                    (first, slice(None, 1), last, slice(-1, None)),
                    (last, slice(-1, None), first, slice(None, 1)),
                    (last, slice(-1, None), last, slice(-1, None)),
                ),
                strict=True,
            )
        ]
        upper = rows[0] - F.pad(corners[0], (0, width - 1)) - F.pad(corners[1], (width - 1, 0))
        lower = rows[1] - F.pad(corners[2], (0, width - 1)) - F.pad(corners[3], (width - 1, 0))
        logits = logits - F.pad(upper, (0, 0, 0, height - 1)) - F.pad(lower, (0, 0, height - 1, 0))
        logits = logits - F.pad(columns[0], (0, width - 1)) - F.pad(columns[1], (width - 1, 0))
        return logits.squeeze(1)


def tap_kernels(conv1: nn.Conv2d, head0: nn.Conv2d) -> tuple[Tensor, Tensor]:
    """Fold conv1 into each tap (a, b) of head0: both are linear with nothing between them.

    weight[a, b] = sum_o head0[o, a, b] * conv1[o], bias[a, b] = sum_o head0[o, a, b] * bias1[o].

    Args:
        conv1: 7x7, P to width channels, padding 3.
        head0: 3x3, width channels to 1, padding 1.

    Returns:
        Weight (3, 3, P, 7, 7) and bias (3, 3).
    """
    taps = head0.weight[0].detach()
    bias = cast(Tensor, conv1.bias).detach()
    weight = torch.einsum("oab,opyx->abpyx", taps, conv1.weight.detach())
    return weight, torch.einsum("oab,o->ab", taps, bias)


def tap_convolution(
    weight: Tensor, rows: Sequence[int], columns: Sequence[int], padding: tuple[int, int]
) -> nn.Module:
    """The sum of some of head0's folded taps as one transposed convolution to a single channel.

    It equals a convolution with the flipped kernel. Engines without a fast convolution to a single channel
    run it faster: one matrix product for all taps, whose results they add up shifted.

    Args:
        weight: (3, 3, P, 7, 7) of `tap_kernels`.
        rows: consecutive rows of head0's taps.
        columns: consecutive columns.
        padding: rows and columns cut off each side of the result.

    Returns:
        A module from (T, P, h, w) to (T, 1, _, _).
    """
    prompts = weight.shape[2]
    kernel = weight.new_zeros(prompts, 6 + len(rows), 6 + len(columns))
    for a in rows:
        for b in columns:
            top, left = a - rows[0], b - columns[0]
            kernel[:, top : top + 7, left : left + 7] += weight[a, b]
    # On "meta", since drawing random weights that are replaced would advance the random generator.
    with torch.device("meta"):
        size = (kernel.shape[1], kernel.shape[2])
        layer = nn.ConvTranspose2d(prompts, 1, size, padding=padding, bias=False)
    layer.weight = nn.Parameter(kernel.flip(1, 2).unsqueeze(1), requires_grad=False)
    return layer
