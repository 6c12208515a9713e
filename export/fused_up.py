"""The transposed convolution of a decoder stage, fused with its share of the 3x3 convolution after it."""

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..model.stage import DecoderStage


def fused_kernel(up: Tensor, conv: Tensor) -> Tensor:
    """A 2x2 transposed convolution of stride 2, then a 3x3 one with padding 1, as one transposed convolution.

    Output row Y of the pair reads row Y + a - 1 of the up-sampled map, which tap i = 0, 1 made of row y with
    Y + a - 1 = 2y + i; a kernel of 4 with stride 2 and padding 1 has Y = 2y - 1 + k, hence k = i - a + 2.
    Nothing lies outside the map in either, so borders agree.

    Args:
        up: (in, features, 2, 2).
        conv: (out, features, 3, 3).

    Returns:
        (in, out, 4, 4), for stride 2 and padding 1.
    """
    fused = up.new_zeros(up.shape[0], conv.shape[0], 4, 4)
    for i, j in torch.cartesian_prod(torch.arange(2), torch.arange(2)).tolist():
        for a, b in torch.cartesian_prod(torch.arange(3), torch.arange(3)).tolist():
            fused[:, :, i - a + 2, j - b + 2] += up[:, :, i, j] @ conv[:, :, a, b].T
    return fused


class FusedUp(nn.Module):
    """What `DecoderStage` does from its transposed convolution on, for one image.

    The first 3x3 convolution is a sum over what it reads: the features, whose share is fused with the
    transposed convolution, the cost guidance, and the image guidance, whose share is the same for every
    category. The bias of the transposed convolution, which zero padding cuts at the border, is a map that
    joins the latter.
    """

    bias: Tensor

    def __init__(self, stage: DecoderStage, side: int) -> None:
        """`side` is h = w of the features."""
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
        """(K, width, h, w), (1, _, 2h, 2w) and (K, _, 2h, 2w) to (K, out, 2h, 2w)."""
        shared = F.conv2d(image, self.image, padding=1) + self.bias
        refined: Tensor = self.rest(self.up(x) + F.conv2d(cost, self.cost, padding=1) + shared)
        return refined
