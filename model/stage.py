"""One decoder stage: refine, mix categories, double the resolution, take in guidance."""

from typing import cast

import torch
import torch.nn.functional as F
from timm.models.convnext import ConvNeXtBlock
from torch import Tensor, nn

from .attention import ClassAttention


class GuidedConv(nn.Module):
    """Two times 3x3 convolution, GroupNorm, ReLU over [features, image guidance, cost guidance]."""

    def __init__(self, features: int, guidance: int, out: int) -> None:
        super().__init__()
        self.features, self.guidance = features, guidance
        groups = max(1, out // 16)
        self.double_conv = nn.Sequential(
            nn.Conv2d(features + 2 * guidance, out, 3, padding=1, bias=False),
            nn.GroupNorm(groups, out),
            nn.ReLU(),
            nn.Conv2d(out, out, 3, padding=1, bias=False),
            nn.GroupNorm(groups, out),
            nn.ReLU(),
        )

    def split_kernel(self) -> tuple[Tensor, Tensor]:
        """Split the first convolution into what each category has of its own and the image guidance.

        Returns:
            (out, features + guidance, 3, 3) and (out, guidance, 3, 3).
        """
        weight = cast(nn.Conv2d, self.double_conv[0]).weight
        own, image, cost = weight.split([self.features, self.guidance, self.guidance], dim=1)
        return torch.cat([own, cost], 1), image

    def forward(self, x: Tensor, image: Tensor, cost: Tensor) -> Tensor:
        """Convolve; the image guidance's share is the same for every category, so it is made once per image.

        Args:
            x: (B*T, features, h, w).
            image: image guidance, (B, guidance, h, w).
            cost: cost guidance, (B*T, guidance, h, w).

        Returns:
            (B*T, out, h, w).
        """
        own_kernel, image_kernel = self.split_kernel()
        shared = F.conv2d(image, image_kernel, padding=1)
        own = F.conv2d(torch.cat([x, cost], 1), own_kernel, padding=1)
        if image.shape[0] == 1:
            return self.double_conv[1:](own + shared)
        per_image = own.unflatten(0, (image.shape[0], -1)) + shared.unsqueeze(1)
        return self.double_conv[1:](per_image.flatten(0, 1))


class DecoderStage(nn.Module):
    """ConvNeXt block, class attention, transposed convolution, guided convolution."""

    def __init__(self, width: int, guidance: int, out: int, pool: int) -> None:
        super().__init__()
        # Published SED starts the layer scale at 1, not at timm's 1e-6.
        self.cnext = ConvNeXtBlock(width, kernel_size=9, ls_init_value=1.0)
        self.attention = ClassAttention(width, pool)
        self.up = nn.ConvTranspose2d(width, width - guidance, 2, stride=2)
        self.conv = GuidedConv(width - guidance, guidance, out)

    def forward(self, x: Tensor, image: Tensor, cost: Tensor) -> Tensor:
        """Refine the categories of B images.

        Args:
            x: (B*T, width, h, w).
            image: image guidance, (B, guidance, 2h, 2w).
            cost: cost guidance, (B*T, guidance, 2h, 2w).

        Returns:
            (B*T, out, 2h, 2w).
        """
        x = self.attention(self.cnext(x), images=image.shape[0])
        return self.conv(self.up(x), image, cost)
