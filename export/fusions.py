"""Exact rewrites of a decoder stage for faster graphs: `StageBlock`, then `FusedUp`."""

from collections.abc import Callable
from itertools import product
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..model.decoder import HEADS, ClassAttention, DecoderStage
from .convnext import PointwiseBlock, PointwiseMlp, after_norm


class StageBlock(nn.Module):
    """The first half of `DecoderStage`, before its transposed convolution, for one image.

    The ConvNeXt block and the last linear layers work on maps, with 1x1 convolutions. The attention alone
    reads all categories of a pixel, so it works on tokens (pixels, K, width).
    """

    def __init__(self, stage: DecoderStage) -> None:
        super().__init__()
        self.block = PointwiseBlock(stage.cnext)
        self.attend = TokenAttention(stage.attention)
        self.mlp = PointwiseMlp(stage.attention.norm2, *stage.attention.MLP)

    def forward(self, x: Tensor, alive: Tensor) -> Tensor:
        """Refine the features.

        Args:
            x: (K, width, h, w).
            alive: bool (K,), False for padding, which no category attends to.

        Returns:
            (K, width, h, w).
        """
        x = self.block(x)
        # Two moves of whole rows of channels are faster than one transposition of the map.
        tokens = x.permute(0, 2, 3, 1).flatten(1, 2).permute(1, 0, 2)
        attended = self.attend(tokens, alive).permute(1, 0, 2).unflatten(1, x.shape[2:]).permute(0, 3, 1, 2)
        mixed = x + attended
        # The class attention adds its input once more.
        refined: Tensor = x + (mixed + self.mlp(mixed))
        return refined


class TokenAttention(nn.Module):
    """The attention of `ClassAttention` with the norm before it, on tokens (pixels, K, width)."""

    def __init__(self, layer: ClassAttention) -> None:
        super().__init__()
        attention, norm = layer.attention, layer.norm1
        width = attention.q.in_features
        self.norm = nn.LayerNorm(width, norm.eps, elementwise_affine=False)
        self.query, self.key, self.value = (
            after_norm(linear, norm) for linear in (attention.q, attention.k, attention.v)
        )
        self.attend = BlockAttention(width)

    def forward(self, tokens: Tensor, alive: Tensor) -> Tensor:
        """(pixels, K, width) to the same; `alive` is bool (K,), False for padding."""
        normed = self.norm(tokens)
        attended: Tensor = self.attend(self.query(normed), self.key(normed), self.value(normed), alive)
        return attended


class BlockAttention(nn.Module):
    """Linear attention of all heads in one matrix product, without splitting or transposing the tokens.

    The summary of all channels with all is computed and the blocks that mix two heads are set to zero. That
    takes HEADS times the arithmetic of separate heads, which is little beside the projections.
    """

    blocks: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        head = torch.arange(width) // (width // HEADS)
        self.feature_map: Callable[[Tensor], Tensor] = elu_plus_one
        self.register_buffer("blocks", (head.unsqueeze(1) == head).to(torch.float32))

    def forward(self, query: Tensor, key: Tensor, value: Tensor, alive: Tensor) -> Tensor:
        """Attend along the category axis; `LinearAttention` has the formula, whose T cancels.

        Args:
            query: (pixels, K, width).
            key: likewise.
            value: likewise.
            alive: bool (K,), False for padding, which no category attends to.

        Returns:
            (pixels, K, width).
        """
        query = self.feature_map(query)
        key = self.feature_map(key) * alive.to(key.dtype).unsqueeze(-1)
        summary = (key.transpose(1, 2) @ value) * self.blocks
        norm = key.sum(1).unsqueeze(-1) * self.blocks
        return (query @ summary) / (query @ norm + 1e-6)


def elu_plus_one(x: Tensor) -> Tensor:
    """elu(x) + 1, which is positive."""
    return F.elu(x) + 1


def elu_plus_one_by_cases(x: Tensor) -> Tensor:
    """The same without Elu: ONNX Runtime has none for GPUs in the opset that bfloat16 needs."""
    return torch.where(x > 0, x + 1, torch.exp(x))


class FusedUp(nn.Module):
    """The second half of `DecoderStage`, from its transposed convolution on, for one image.

    The first 3x3 convolution is a sum over its three inputs: the features, whose share is fused with the
    transposed convolution; the cost guidance; and the image guidance, whose share is the same for every
    category. The bias of the transposed convolution becomes a map, since zero padding cuts it off at the
    border; it is added to the image guidance's share.
    """

    bias: Tensor

    def __init__(self, stage: DecoderStage, side: int) -> None:
        """Fuse the layers of `stage` for features of h = w = `side`."""
        super().__init__()
        own, image = stage.conv.split_kernel()
        features, cost = own.detach().split([stage.conv.features, stage.conv.guidance], dim=1)
        kernel = fused_kernel(stage.up.weight.detach(), features)
        with torch.device("meta"):
            self.up = nn.ConvTranspose2d(kernel.shape[0], kernel.shape[1], 4, stride=2, padding=1, bias=False)
        self.up.weight = nn.Parameter(kernel, requires_grad=False)
        self.cost = nn.Parameter(cost, requires_grad=False)
        self.image = nn.Parameter(image.detach(), requires_grad=False)
        level = cast(Tensor, stage.up.bias).detach().view(1, -1, 1, 1).expand(-1, -1, 2 * side, 2 * side)
        self.register_buffer("bias", F.conv2d(level, features, padding=1))
        self.rest = stage.conv.double_conv[1:]

    def forward(self, x: Tensor, image: Tensor, cost: Tensor) -> Tensor:
        """Up-sample the features and mix in the guidance.

        Args:
            x: features, (K, width, h, w).
            image: image guidance, (1, _, 2h, 2w).
            cost: cost guidance, (K, _, 2h, 2w).

        Returns:
            (K, out, 2h, 2w).
        """
        shared = F.conv2d(image, self.image, padding=1) + self.bias
        refined: Tensor = self.rest(self.up(x) + F.conv2d(cost, self.cost, padding=1) + shared)
        return refined


def fused_kernel(up: Tensor, conv: Tensor) -> Tensor:
    """A 2x2 transposed convolution of stride 2, then a 3x3 one with padding 1, as one transposed convolution.

    Output row Y of the pair reads row Y + a - 1 of the up-sampled map, to which tap i = 0, 1 contributes row
    y with Y + a - 1 = 2y + i; a kernel of 4 with stride 2 and padding 1 has Y = 2y - 1 + k, so k = i - a + 2.
    Both read zeros outside the map, so borders agree.

    Args:
        up: (in, features, 2, 2).
        conv: (out, features, 3, 3).

    Returns:
        (in, out, 4, 4), for stride 2 and padding 1.
    """
    fused = up.new_zeros(up.shape[0], conv.shape[0], 4, 4)
    for i, j in product(range(2), repeat=2):
        for a, b in product(range(3), repeat=2):
            fused[:, :, i - a + 2, j - b + 2] += up[:, :, i, j] @ conv[:, :, a, b].T
    return fused


def as_pixel_shuffle(layer: nn.ConvTranspose2d) -> nn.Sequential:
    """A transposed convolution of stride 2 as a convolution to four times the channels and a pixel shuffle.

    The four channels become the 2x2 pixels of one. Row 2y + r of the result reads row y + d of the input at
    the tap k = r + padding - 2d of the transposed kernel.

    Args:
        layer: kernel 2 without padding, or kernel 4 with padding 1; (K, in, h, w) to (K, out, 2h, 2w).
    """
    weight: Tensor = layer.weight.detach()
    channels, out, size, _ = weight.shape
    reach = size // 2 - 1
    kernel = weight.new_zeros(out, 2, 2, channels, 2 * reach + 1, 2 * reach + 1)
    taps = [
        (r, d, r + reach - 2 * d)
        for r in (0, 1)
        for d in range(-reach, reach + 1)
        if 0 <= r + reach - 2 * d < size
    ]
    for r, down, k in taps:
        for s, across, m in taps:
            kernel[:, r, s, :, reach + down, reach + across] = weight[:, :, k, m].T
    with torch.device("meta"):
        conv = nn.Conv2d(channels, 4 * out, 2 * reach + 1, padding=reach, bias=layer.bias is not None)
    conv.weight = nn.Parameter(kernel.flatten(0, 2), requires_grad=False)
    if layer.bias is not None:
        conv.bias = nn.Parameter(layer.bias.detach().repeat_interleave(4), requires_grad=False)
    return nn.Sequential(conv, PixelShuffle())


class PixelShuffle(nn.Module):
    """nn.PixelShuffle(2) as moves of axes: ONNX Runtime has no DepthToSpace of bfloat16 for GPUs."""

    def forward(self, x: Tensor) -> Tensor:
        """(K, 4 C, h, w) to (K, C, 2h, 2w)."""
        pixels = x.unflatten(1, (x.shape[1] // 4, 2, 2)).permute(0, 1, 4, 2, 5, 3)
        return pixels.flatten(4, 5).flatten(2, 3)
