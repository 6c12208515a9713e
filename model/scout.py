"""The scout: head0's logits of every category without conv1's 128 channels.

`Scout` computes them from the cost map, `FoldedScout` from the image's embedding and a folded vocabulary.
"""

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
        weight, _ = tap_kernels(conv1, head0)
        self.inside = tap_convolution(weight, ALL, ALL, padding=(4, 4))
        self.top, self.bottom = (tap_convolution(weight, [a], ALL, padding=(2, 4)) for a in (0, 2))
        self.left, self.right = (tap_convolution(weight, ALL, [b], padding=(4, 2)) for b in (0, 2))
        self.corners = nn.ModuleList(
            tap_convolution(weight, [a], [b], padding=(2, 2)) for a in (0, 2) for b in (0, 2)
        )
        self.register_buffer("bias", bias_map(conv1, head0, side))

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


# Rows, or columns, of a 9x9 kernel that read inside the map from its first row, any row, its last row.
_FIRST, _ANY, _LAST = slice(4, 7), slice(0, 9), slice(2, 5)
# Of head0's taps, the rows and columns that read outside the map, along each border and at each corner, with
# the rows and columns of the folded kernel that they need there.
_BORDERS = (
    ((0,), ALL, _FIRST, _ANY),
    ((2,), ALL, _LAST, _ANY),
    (ALL, (0,), _ANY, _FIRST),
    (ALL, (2,), _ANY, _LAST),
)
_CORNERS = (
    ((0,), (0,), _FIRST, _FIRST),
    ((0,), (2,), _FIRST, _LAST),
    ((2,), (0,), _LAST, _FIRST),
    ((2,), (2,), _LAST, _LAST),
)


class Fold(nn.Module):
    """A vocabulary folded with conv1 and head0, which `FoldedScout` multiplies with an image."""

    weight: Tensor

    def __init__(self, conv1: nn.Conv2d, head0: nn.Conv2d) -> None:
        super().__init__()
        weight, _ = tap_kernels(conv1, head0)
        parts = ((ALL, ALL, _ANY, _ANY), *_BORDERS, *_CORNERS)
        kernels = [
            tap_kernel(weight, rows, columns)[:, down, across].flatten(1).T
            for rows, columns, down, across in parts
        ]
        # (225, P): 81 taps, four times 27, four times 9.
        self.register_buffer("weight", torch.cat(kernels))

    def forward(self, text: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Taps (T, 81 C), (4, T, 27 C) and (4, T, 9 C) from unit vectors (T, P, C)."""
        inside, *rest = (self.weight @ text).split([81, *[27] * 4, *[9] * 4], dim=1)
        borders, corners = (torch.stack([part.flatten(1) for part in four]) for four in (rest[:4], rest[4:]))
        return inside.flatten(1), borders, corners


class UnitLength(nn.Module):
    """Image embeddings at unit length."""

    def forward(self, embed: Tensor) -> Tensor:
        """(B, C, h, w) to the same."""
        return F.normalize(embed, dim=1)


class FoldedScout(nn.Module):
    """The logits of `Scout` as one matrix product of an image and a folded vocabulary.

    The cost map is linear in the vocabulary, and the convolutions are linear in the cost map. So each
    category has a vector for each of 9x9 displacements (taps), and its logit at a position is the product of
    all its vectors with the image's embedding at the displaced positions. As in `Scout`, further taps
    subtract along the borders what head0 does not read there, and add back at the corners what was
    subtracted twice.
    """

    bias: Tensor
    inside: Tensor
    borders: Tensor
    corners: Tensor

    def __init__(self, conv1: nn.Conv2d, head0: nn.Conv2d, side: int) -> None:
        """For embeddings of h = w = `side`; gradients do not reach the convolutions."""
        super().__init__()
        every, first, last = range(side), (0,), (side - 1,)
        edges = ((first, every), (last, every), (every, first), (every, last))
        tips = ((first, first), (first, last), (last, first), (last, last))
        self.register_buffer("inside", tap_positions(side, every, every, _ANY, _ANY))
        for name, places, parts in (("borders", edges, _BORDERS), ("corners", tips, _CORNERS)):
            positions = [
                tap_positions(side, rows, columns, down, across)
                for (rows, columns), (_, _, down, across) in zip(places, parts, strict=True)
            ]
            self.register_buffer(name, torch.stack(positions))
        self.register_buffer("bias", bias_map(conv1, head0, side).unsqueeze(-1))

    def forward(self, unit: Tensor, inside: Tensor, borders: Tensor, corners: Tensor) -> Tensor:
        """Logits, float32 (T, h, w), from unit vectors, (1, C, h, w), and the taps that `Fold` gives."""
        side = unit.shape[-1]
        # Taps that reach outside the map read the zeros of the first row.
        rows = F.pad(unit.flatten(2)[0].T, (0, 0, 1, 0))
        logits = (rows[self.inside].flatten(1) @ inside.T).float().unflatten(0, (side, side)) + self.bias
        border = (rows[self.borders].flatten(2) @ borders.transpose(1, 2)).float()
        corner = (rows[self.corners].flatten(2) @ corners.transpose(1, 2)).float()
        far = side - 1
        top = border[0] - F.pad(corner[0], (0, 0, 0, far)) - F.pad(corner[1], (0, 0, far, 0))
        bottom = border[1] - F.pad(corner[2], (0, 0, 0, far)) - F.pad(corner[3], (0, 0, far, 0))
        logits = logits - F.pad(top.unsqueeze(0), (0, 0, 0, 0, 0, far))
        logits = logits - F.pad(bottom.unsqueeze(0), (0, 0, 0, 0, far, 0))
        logits = logits - F.pad(border[2].unsqueeze(1), (0, 0, 0, far))
        logits = logits - F.pad(border[3].unsqueeze(1), (0, 0, far, 0))
        return logits.permute(2, 0, 1)


def tap_positions(
    side: int, rows: Sequence[int], columns: Sequence[int], down: slice, across: slice
) -> Tensor:
    """For each position of a square map, the positions that its taps read.

    Args:
        side: of the map.
        rows: of the positions.
        columns: likewise.
        down: the displacements plus 4 of the taps, between 0 and 9.
        across: likewise.

    Returns:
        int64 (rows x columns, taps): 1 plus the position in the flattened map, 0 outside it.
    """
    padded = F.pad(torch.arange(1, side * side + 1).view(side, side), (4, 4, 4, 4))
    return torch.stack([padded[y : y + 9, x : x + 9][down, across].flatten() for y in rows for x in columns])


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


def bias_map(conv1: nn.Conv2d, head0: nn.Conv2d, side: int) -> Tensor:
    """head0's logits of a map of zeros, (side, side): conv1's bias, cut by head0's padding at the border."""
    _, bias = tap_kernels(conv1, head0)
    level = F.conv2d(bias.new_ones(1, 1, side, side), bias.view(1, 1, 3, 3), padding=1)[0, 0]
    return level + cast(Tensor, head0.bias).detach()


def tap_kernel(weight: Tensor, rows: Sequence[int], columns: Sequence[int]) -> Tensor:
    """The sum of some of head0's folded taps as one kernel.

    Args:
        weight: (3, 3, P, 7, 7) of `tap_kernels`.
        rows: of head0's taps.
        columns: likewise.

    Returns:
        (P, 9, 9), centred on the position that head0 gives.
    """
    kernel = weight.new_zeros(weight.shape[2], 9, 9)
    for a in rows:
        for b in columns:
            kernel[:, a : a + 7, b : b + 7] += weight[a, b]
    return kernel


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
    kernel = tap_kernel(weight, rows, columns)
    kernel = kernel[:, rows[0] : rows[-1] + 7, columns[0] : columns[-1] + 7]
    # On "meta", since drawing random weights that are replaced would advance the random generator.
    with torch.device("meta"):
        size = (kernel.shape[1], kernel.shape[2])
        layer = nn.ConvTranspose2d(weight.shape[2], 1, size, padding=padding, bias=False)
    layer.weight = nn.Parameter(kernel.flip(1, 2).unsqueeze(1), requires_grad=False)
    return layer
