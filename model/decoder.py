"""SED's decoder: cost map, first convolution, guidance, three stages and four heads."""

from collections.abc import Callable, Sequence
from typing import cast

import torch
import torch.nn.functional as F
from timm.models.convnext import ConvNeXtBlock
from torch import Tensor, nn

from .presets import Preset
from .scout import Scout

HEADS = 4
# From a head's logits (T, h, w) to the indices, int64 (K,), of the categories that the next stage decodes.
Keep = Callable[[Tensor], Tensor]


class CostMap(nn.Module):
    """Cosine between every position and every prompt; it has no weights."""

    def forward(self, embed: Tensor, text: Tensor) -> Tensor:
        """Compute the cosines.

        Args:
            embed: image embeddings, (B, C, h, w), not necessarily of unit length.
            text: unit vectors, (T, P, C) for all images or (B, T, P, C) for each its own.

        Returns:
            (B*T, P, h, w): the categories are in the batch axis, here and in all that follows.
        """
        height, width = embed.shape[-2:]
        positions = F.normalize(embed, dim=1).flatten(2)
        cosines = text.flatten(-3, -2) @ positions
        return cosines.reshape(-1, text.shape[-2], height, width)


class Decoder(nn.Module):
    """The whole decoder and the order in which it runs. Its modules have the published checkpoints' names."""

    def __init__(self, preset: Preset, prompts: int) -> None:
        super().__init__()
        widths, guidance, pool = preset.decoder_widths, preset.guidance_widths, preset.attention_pool
        self.cost_map = CostMap()
        self.conv1 = nn.Conv2d(prompts, widths[0], 7, padding=3)
        res2, res3, res4, _ = preset.trunk_widths
        self.decoder_guidance_projection = nn.ModuleList(
            nn.Sequential(nn.Conv2d(width, out, 3, padding=1), nn.ReLU())
            for width, out in zip((res4, res3, res2), guidance, strict=True)
        )
        self.decoder_corr_guidance_projection = nn.ModuleList(
            nn.Sequential(nn.ConvTranspose2d(width, out, 2, stride=2), nn.ReLU())
            for width, out in zip((prompts, *guidance[:2]), guidance, strict=True)
        )
        self.decoder1 = DecoderStage(widths[0], guidance[0], widths[1], pool)
        self.decoder2 = DecoderStage(widths[1], guidance[1], widths[2], pool)
        self.decoder3 = DecoderStage(widths[2], guidance[2], widths[3], pool)
        self.head0, self.head1, self.head2 = Head(widths[0]), Head(widths[1]), Head(widths[2])
        self.head = Head(widths[3])

    def forward(
        self, embed: Tensor, guidance: Sequence[Tensor], text: Tensor, keep: Keep | None = None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Run head0, then the three stages with their heads, and reject categories in between.

        Args:
            embed: image embeddings, (B, C, h, w).
            guidance: image guidance of stages 1, 2, 3: (B, _, 2h, 2w), (B, _, 4h, 4w), (B, _, 8h, 8w).
            text: unit vectors, (T, P, C) for all images or (B, T, P, C) for each its own.
            keep: called with the logits of head0, head1 and head2, each for the categories left so far; for
                B = 1, and without gradients to conv1 and head0. None keeps all categories.

        Returns:
            Logits of head0, head1, head2 and head: (B*T, h, w), (B*T, 2h, 2w), (B*T, 4h, 4w), (B*T, 8h, 8w);
            with `keep` T is the number of categories that enter the head.
        """
        cost = self.cost_map(embed, text)
        if keep is None:
            x = self.conv1(cost)
            # The aux heads learn from the features but do not shape them.
            logits = [self.head0(x.detach()).squeeze(1)]
        else:
            # The scout needs no features: only the categories that it leaves go through conv1.
            logits = [Scout(self.conv1, self.head0, side=cost.shape[-1])(cost)]
            cost = cost[keep(logits[0])]
            x = self.conv1(cost)
        for index, (stage, head) in enumerate(zip(self.stages, self.stage_heads, strict=True)):
            if keep is not None and index > 0:
                kept = keep(logits[index])
                x, cost = x[kept], cost[kept]
            cost = self.decoder_corr_guidance_projection[index](cost)
            x = stage(x, guidance[index], cost)
            logits.append(head(x if head is self.head else x.detach()).squeeze(1))
        return logits[0], logits[1], logits[2], logits[3]

    @property
    def stages(self) -> "tuple[DecoderStage, DecoderStage, DecoderStage]":
        """The three stages in order."""
        return self.decoder1, self.decoder2, self.decoder3

    @property
    def stage_heads(self) -> tuple[nn.Conv2d, nn.Conv2d, nn.Conv2d]:
        """The head that reads each stage's output."""
        return self.head1, self.head2, self.head

    def image_guidance(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Project the trunk's maps.

        Args:
            maps: res2, res3, res4, res5: (B, _, 8h, 8w), (B, _, 4h, 4w), (B, _, 2h, 2w), (B, _, h, w).

        Returns:
            For stages 1, 2, 3: (B, guidance, 2h, 2w), (B, guidance, 4h, 4w), (B, guidance, 8h, 8w).
        """
        res2, res3, res4, _ = maps
        sources = (res4, res3, res2)
        return [
            project(source) for project, source in zip(self.decoder_guidance_projection, sources, strict=True)
        ]


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
        """Refine the features of the categories of B images, and double their resolution.

        Args:
            x: (B*T, width, h, w).
            image: image guidance, (B, guidance, 2h, 2w).
            cost: cost guidance, (B*T, guidance, 2h, 2w).

        Returns:
            (B*T, out, 2h, 2w).
        """
        x = self.attention(self.cnext(x), images=image.shape[0])
        return self.conv(self.up(x), image, cost)


class ClassAttention(nn.Module):
    """A pre-norm transformer layer across the categories at each position, added to its input once more.

    While training it works on an average-pooled map, as published.
    """

    def __init__(self, width: int, pool: int) -> None:
        super().__init__()
        self.pool = pool
        self.attention = LinearAttention(width)
        self.MLP = nn.Sequential(nn.Linear(width, width * 4), nn.ReLU(), nn.Linear(width * 4, width))
        self.norm1 = nn.LayerNorm(width)
        self.norm2 = nn.LayerNorm(width)

    def forward(self, x: Tensor, images: int) -> Tensor:
        """Mix the categories of each image.

        Args:
            x: (B*T, width, h, w).
            images: B.

        Returns:
            (B*T, width, h, w).
        """
        pooled = self.training and self.pool > 1
        z = F.avg_pool2d(x, self.pool) if pooled else x
        height, width = z.shape[-2:]
        tokens = z.unflatten(0, (images, -1)).flatten(3).permute(0, 3, 1, 2)
        tokens = tokens + self.attention(self.norm1(tokens))
        tokens = tokens + self.MLP(self.norm2(tokens))
        z = tokens.permute(0, 2, 3, 1).flatten(0, 1).unflatten(2, (height, width))
        if pooled:
            z = F.interpolate(z, size=x.shape[-2:], mode="bilinear", align_corners=True)
        return x + z


class LinearAttention(nn.Module):
    """Linear attention with phi = elu + 1 (Katharopoulos et al., 2020), without an output projection."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.q = nn.Linear(width, width)
        self.k = nn.Linear(width, width)
        self.v = nn.Linear(width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """Attend along the category axis.

        out_t = T * phi(q_t) . (sum_s phi(k_s) v_s^T / T) / (phi(q_t) . sum_s phi(k_s) + 1e-6)

        Args:
            tokens: (B, pixels, T, width).

        Returns:
            (B, pixels, T, width).
        """
        categories = tokens.shape[2]
        query = F.elu(self._split(self.q(tokens))) + 1
        key = F.elu(self._split(self.k(tokens))) + 1
        value = self._split(self.v(tokens)) / categories
        summary = key.transpose(-1, -2) @ value
        norm = query @ key.sum(-2).unsqueeze(-1) + 1e-6
        out = (query @ summary) / norm * categories
        return out.transpose(2, 3).flatten(3)

    @staticmethod
    def _split(tokens: Tensor) -> Tensor:
        """(B, pixels, T, width) to (B, pixels, heads, T, width / heads)."""
        return tokens.unflatten(3, (HEADS, -1)).transpose(2, 3)


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
        """Split the first convolution's kernel by its input: features and cost guidance, and image guidance.

        Returns:
            (out, features + guidance, 3, 3) and (out, guidance, 3, 3).
        """
        weight = cast(nn.Conv2d, self.double_conv[0]).weight
        own, image, cost = weight.split([self.features, self.guidance, self.guidance], dim=1)
        return torch.cat([own, cost], 1), image

    def forward(self, x: Tensor, image: Tensor, cost: Tensor) -> Tensor:
        """Convolve. The image guidance's share is the same for every category and is computed once per image.

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


class Head(nn.Conv2d):
    """3x3 convolution from features, (B*T, width, h, w), to logits, (B*T, 1, h, w)."""

    def __init__(self, width: int) -> None:
        super().__init__(width, 1, 3, padding=1)
