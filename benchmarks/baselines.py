"""Baselines: SED in the order of its authors' code, and SED as one ONNX graph without rejection."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..export.onnx_graph import write_graph
from ..export.precision import OPSETS
from ..export.stages import GraphSpec
from ..model import SED
from ..model.clip import dense_features
from ..model.decoder import HEADS, ClassAttention, DecoderStage
from ..model.labels import to_pixels
from ..stages import StageDefinition, TensorDefinition

# Gives the block in which a step runs, for timing.
Watch = Callable[[str], AbstractContextManager[None]]
Step = Callable[..., Tensor | tuple[Tensor, ...]]


class PublishedSED:
    """The steps of the published network on the weights of a model, which it shares.

    Attributes:
        steps: the network's four parts by name; `torch.compile` may replace them.
    """

    def __init__(self, model: SED) -> None:
        self.preset = model.preset
        self.device = model.device
        self.visual = model.clip.visual
        self.decoder = model.decoder
        self.steps: dict[str, Step] = {
            "image": self.image,
            "scout": self.scout,
            "guidance": self.cost_guidance,
            "stage": self.stage,
        }

    def image(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """The image tower: (1, 3, S, S) to the embedding (1, C, h, h) and the guidance of three stages."""
        embed, maps = dense_features(self.visual, pixels)
        return embed, *self.decoder.image_guidance(maps)

    def scout(self, embed: Tensor, text: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What the first rejection needs, of all categories.

        Args:
            embed: (1, C, h, h).
            text: unit vectors, (T, P, C).

        Returns:
            The cost map (T, P, h, h), its features (T, width, h, h) and head0's logits (T, h, h).
        """
        cosines = torch.einsum("bchw,btpc->bpthw", F.normalize(embed, dim=1), F.normalize(text[None], dim=-1))
        cost = cosines.permute(0, 2, 1, 3, 4).flatten(0, 1)
        x = self.decoder.conv1(cost)
        return cost, x, self.decoder.head0(x).squeeze(1)

    def cost_guidance(self, cost: Tensor) -> tuple[Tensor, ...]:
        """(T, P, h, h) to (T, _, 2h, 2h), (T, _, 4h, 4h), (T, _, 8h, 8h): of all categories."""
        guidance = []
        for project in self.decoder.decoder_corr_guidance_projection:
            cost = project(cost)
            guidance.append(cost)
        return tuple(guidance)

    def stage(self, index: int, x: Tensor, image: Tensor, cost: Tensor) -> tuple[Tensor, Tensor]:
        """A decoder stage, 0 to 2, and its head.

        Args:
            index: which.
            x: features of the categories left, (K, width, h, h).
            image: (1, guidance, 2h, 2h).
            cost: (K, guidance, 2h, 2h).

        Returns:
            Features (K, _, 2h, 2h) and logits (K, 2h, 2h).
        """
        stage: DecoderStage = self.decoder.stages[index]
        x = stage.up(class_attention(stage.attention, stage.cnext(x)))
        repeated = image.expand(x.shape[0], -1, -1, -1)
        x = stage.conv.double_conv(torch.cat([torch.cat([x, repeated], dim=1), cost], dim=1))
        return x, self.decoder.stage_heads[index](x).squeeze(1)

    @torch.no_grad()
    def decode(
        self,
        embed: Tensor,
        guidance: Sequence[Tensor],
        text: Tensor,
        k: int | None = 8,
        forced: Sequence[Tensor] | None = None,
        watch: Watch = lambda _step: nullcontext(),
    ) -> tuple[Tensor, Tensor, tuple[int, ...]]:
        """From the image's embedding to the logits of the categories left.

        Args:
            embed: (1, C, h, h).
            guidance: image guidance of the three stages.
            text: unit vectors, (T, P, C).
            k: a category survives if it is among the k best at some pixel; None rejects nothing.
            forced: at each of the three points, int64 (K,) of the categories entering it, which survive
                instead of those that the network would choose; those are still computed.
            watch: gives the block that each of `candidates.STEPS` runs in.

        Returns:
            Logits (K3, 8h, 8h), int64 (K3,) of the categories they are of, and three counts of survivors.
        """
        with watch("scout"):
            cost, x, logits = cast(tuple[Tensor, ...], self.steps["scout"](embed, text))
            alive = None if k is None else survivors(logits, k)
        with watch("guidance"):
            costs = list(cast(tuple[Tensor, ...], self.steps["guidance"](cost)))
        kept = torch.arange(text.shape[0], device=x.device)
        counts: list[int] = []
        for index, image in enumerate(guidance):
            with watch(f"decode{index + 1}"):
                cost = costs[index]
                if alive is not None:
                    chosen = alive.nonzero().squeeze(1) if forced is None else forced[index]
                    kept, x = kept[chosen], x[chosen]
                    cost = cost[kept]
                counts.append(kept.shape[0])
                x, logits = cast(tuple[Tensor, ...], self.steps["stage"](index, x, image, cost))
                if k is not None and index < 2:
                    alive = survivors(logits, k)
        return logits, kept, tuple(counts)

    @torch.no_grad()
    def segment(
        self,
        image: Tensor,
        text: Tensor,
        k: int = 8,
        forced: Sequence[Tensor] | None = None,
        watch: Watch = lambda _step: nullcontext(),
    ) -> tuple[Tensor, tuple[int, ...]]:
        """Label an image, uint8 (H, W, 3); the other arguments are those of `decode`.

        Returns:
            Category indices, int64 (H, W), and three counts of survivors.
        """
        with watch("pixels"):
            pixels = to_pixels(image[None].to(self.device), self.preset.image_size)
        with watch("image"):
            embed, *guidance = cast(tuple[Tensor, ...], self.steps["image"](pixels))
        logits, kept, counts = self.decode(embed, guidance, text, k, forced, watch)
        with watch("label"):
            labels = label_all(logits, kept, text.shape[0], *image.shape[:2])
        return labels, counts


def survivors(logits: Tensor, k: int) -> Tensor:
    """Whether each category of (T, h, w) is among the k best at some pixel, bool (T,)."""
    best = torch.argsort(logits, dim=0, descending=True)[:k].flatten()
    return torch.bincount(best, minlength=logits.shape[0]) > 0


def label_all(logits: Tensor, kept: Tensor, categories: int, height: int, width: int) -> Tensor:
    """Probabilities of every category, 0 where it was rejected, up-sampled; then the best, int64 (H, W)."""
    maps = logits.new_zeros(categories, *logits.shape[1:])
    maps[kept] = logits.sigmoid()
    whole = F.interpolate(maps[None], size=(height, width), mode="bilinear", align_corners=False)
    return whole[0].argmax(0)


def class_attention(layer: ClassAttention, x: Tensor) -> Tensor:
    """Attention across the categories of one image at each pixel, (T, width, h, w) to the same.

    The pooling is 1x1 at test time, and as in the published code it is run, as is the up-sampling after it.
    """
    height, width = x.shape[-2:]
    pooled = F.avg_pool2d(x, 1)
    tokens = pooled.permute(2, 3, 0, 1).flatten(0, 1)
    tokens = tokens + einsum_attention(layer, layer.norm1(tokens))
    tokens = tokens + layer.MLP(layer.norm2(tokens))
    z = tokens.unflatten(0, (height, width)).permute(2, 3, 0, 1)
    return x + F.interpolate(z, size=(height, width), mode="bilinear", align_corners=True)


def einsum_attention(layer: ClassAttention, tokens: Tensor) -> Tensor:
    """Linear attention among tokens, (pixels, T, width) to the same."""
    linear = layer.attention
    query, key, value = (
        project(tokens).unflatten(2, (HEADS, -1)) for project in (linear.q, linear.k, linear.v)
    )
    query, key = F.elu(query) + 1, F.elu(key) + 1
    length = value.shape[1]
    summary = torch.einsum("nshd,nshv->nhdv", key, value / length)
    norm = 1 / (torch.einsum("nlhd,nhd->nlh", query, key.sum(1)) + 1e-6)
    mixed = torch.einsum("nlhd,nhdv,nlh->nlhv", query, summary, norm) * length
    return mixed.contiguous().flatten(2)


class Monolithic(nn.Module):
    """An image and a vocabulary to labels; every category goes through every stage."""

    def __init__(self, model: SED) -> None:
        super().__init__()
        self.model = model
        self.network = PublishedSED(model)

    def forward(self, image: Tensor, text: Tensor) -> Tensor:
        """uint8 (1, H, W, 3) and unit vectors (T, P, C) to labels, int32 (H, W)."""
        network = self.network
        embed, *guidance = network.image(to_pixels(image, network.preset.image_size))
        logits, _, _ = network.decode(embed, guidance, text, k=None)
        size = (image.shape[1], image.shape[2])
        maps = F.interpolate(logits.sigmoid()[None], size=size, mode="bilinear", align_corners=False)
        return maps[0].argmax(0).to(torch.int32)


def export_monolithic(model: SED, size: int, path: Path) -> None:
    """Write the graph for square images of `size` pixels and any number of categories."""
    stage = StageDefinition(
        "monolithic",
        "an image and a vocabulary",
        "labels",
        (
            TensorDefinition("image", "uint8", (1, size, size, 3)),
            TensorDefinition("text", "float32", ("T", "P", "C")),
        ),
        (TensorDefinition("labels", "int32", (size, size)),),
    )
    inputs = {
        "image": torch.randint(0, 256, (1, size, size, 3), dtype=torch.uint8),
        "text": F.normalize(torch.randn(5, len(model.templates), model.preset.embed_dim), dim=-1),
    }
    write_graph(GraphSpec(stage, Monolithic(model), inputs), path, OPSETS["fp32"], {})
