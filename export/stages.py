"""One thin module per stage of the deployed network, and what the export needs to trace each."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..model import SED
from ..model.clip import dense_features
from ..model.labels import LOWEST, label_band, to_pixels, vote_table
from ..model.scout import Scout
from . import stages
from .fusions import FusedUp, TokenBlock


class TextStage(nn.Module):
    """Tokens to sentence embeddings."""

    def __init__(self, model: SED) -> None:
        super().__init__()
        self.clip = model.clip

    def forward(self, tokens: Tensor) -> Tensor:
        """int64 (N, context length) to unit vectors, (N, C)."""
        embedding: Tensor = self.clip.encode_text(tokens, normalize=True)
        return embedding


class PixelsStage(nn.Module):
    """A picture to the network's square input."""

    def __init__(self, model: SED) -> None:
        super().__init__()
        self.size = model.preset.image_size

    def forward(self, image: Tensor) -> Tensor:
        """uint8 (1, H, W, 3) to float32 (1, 3, S, S)."""
        return to_pixels(image, self.size)


class ImageStage(nn.Module):
    """The image tower and the image guidance of the three decoder stages."""

    def __init__(self, model: SED) -> None:
        super().__init__()
        self.visual = model.clip.visual
        self.decoder = model.decoder

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Embed a batch.

        (B, 3, S, S) to embed (B, C, h, h) and guidance (B, _, 2h, 2h), (B, _, 4h, 4h), (B, _, 8h, 8h).
        """
        embed, maps = dense_features(self.visual, pixels.to(self.decoder.conv1.weight.dtype))
        first, second, third = self.decoder.image_guidance(maps)
        return embed, first, second, third


class ScoutStage(nn.Module):
    """head0 of every category, without the features it is defined on."""

    def __init__(self, model: SED) -> None:
        super().__init__()
        self.cost_map = model.cost_map
        self.scout = Scout(model.decoder.conv1, model.decoder.head0, model.preset.grid)

    def forward(self, embed: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
        """(1, C, h, h) and (T, P, C) to logits0 (T, h, h) and votes0 (8, T)."""
        logits = self.scout(self.cost_map(embed, text))
        return logits, vote_table(logits)


class DecodeStage(nn.Module):
    """What decode1, decode2 and decode3 share: the cost guidance, the decoder stage, its head.

    The kept indices of a decoder stage may end in entries of -1, which fill the category axis up to a size
    that an engine has met before: nothing real depends on those categories, and their logits are `LOWEST`.
    """

    def __init__(self, model: SED, index: int) -> None:
        super().__init__()
        stage = model.decoder.stages[index]
        self.project = model.decoder.decoder_corr_guidance_projection[index]
        self.block = TokenBlock(stage)
        self.up = FusedUp(stage, model.preset.grid * 2**index)
        self.head = model.decoder.stage_heads[index]

    def decode(
        self, x: Tensor, cost: Tensor, guidance: Tensor, alive: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Run the decoder stage.

        Features (K, width, h, h), cost map or guidance (K, _, h, h), image guidance (1, _, 2h, 2h) and
        bool (K,) to the next features and cost guidance (K, _, 2h, 2h) and the head's logits (K, 2h, 2h).
        """
        cost = self.project(cost)
        x = self.up(self.block(x, alive), guidance, cost)
        logits = self.head(x).squeeze(1)
        return x, cost, torch.where(alive.view(-1, 1, 1), logits, LOWEST)


def gather(values: Tensor, kept: Tensor) -> Tensor:
    """The rows of `values` that int64 `kept` names; the first one where it is -1."""
    return values.index_select(0, kept.clamp(min=0))


class Decode1Stage(DecodeStage):
    """The cost map's features and decoder stage 1, of the categories that head0 kept."""

    def __init__(self, model: SED) -> None:
        super().__init__(model, 0)
        self.cost_map = model.cost_map
        self.conv1 = model.decoder.conv1

    def forward(
        self, embed: Tensor, text: Tensor, kept0: Tensor, guidance1: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Decode the kept categories.

        (1, C, h, h), (T, P, C), int64 (K1,), (1, _, 2h, 2h) to x1 and cost1 (K1, _, 2h, 2h), logits1
        (K1, 2h, 2h) and votes1 (8, K1).
        """
        alive = kept0 >= 0
        cost = self.cost_map(embed, gather(text, kept0))
        x, cost, logits = self.decode(self.conv1(cost), cost, guidance1, alive)
        return x, cost, logits, vote_table(logits, alive)


class Decode2Stage(DecodeStage):
    """Decoder stage 2, of the categories that head1 kept."""

    def __init__(self, model: SED) -> None:
        super().__init__(model, 1)

    def forward(
        self, x1: Tensor, cost1: Tensor, kept1: Tensor, guidance2: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Decode the kept categories.

        (K1, _, 2h, 2h) twice, int64 (K2,), (1, _, 4h, 4h) to x2 and cost2 (K2, _, 4h, 4h), logits2
        (K2, 4h, 4h) and votes2 (8, K2).
        """
        alive = kept1 >= 0
        x, cost, logits = self.decode(gather(x1, kept1), gather(cost1, kept1), guidance2, alive)
        return x, cost, logits, vote_table(logits, alive)


class Decode3Stage(DecodeStage):
    """Decoder stage 3, of the categories that head2 kept."""

    def __init__(self, model: SED) -> None:
        super().__init__(model, 2)

    def forward(self, x2: Tensor, cost2: Tensor, kept2: Tensor, guidance3: Tensor) -> Tensor:
        """(K2, _, 4h, 4h) twice, int64 (K3,), (1, _, 8h, 8h) to logits (K3, 8h, 8h)."""
        return self.decode(gather(x2, kept2), gather(cost2, kept2), guidance3, kept2 >= 0)[2]


class LabelStage(nn.Module):
    """Logits to labels and scores of a band of output rows."""

    def forward(self, logits: Tensor, kept: Tensor, rows: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
        """(K3, 8h, 8h), int64 (K3,), (R,), (W,) to labels int32 (R, W) and scores (R, W)."""
        labels, scores = label_band(logits, kept, rows, columns)
        # TensorRT has no 16-bit unsigned type; the host narrows the result.
        return labels.to(torch.int32), scores


@dataclass(frozen=True)
class GraphSpec:
    """How one stage is exported.

    Attributes:
        name: of the stage and, with ".onnx", of its file.
        module: what is traced.
        inputs: example inputs by name, in order.
        input_axes: for each input, axis to name, of those that are dynamic.
        output_axes: for each output by name, in order, axis to name of those that are dynamic.
    """

    name: str
    module: nn.Module
    inputs: dict[str, Tensor]
    input_axes: dict[str, dict[int, str]]
    output_axes: dict[str, dict[int, str]]


def graph_specs(model: SED) -> list[GraphSpec]:
    """The eight stages of `model`, in the order they run.

    No dynamic axis of an example has size 1: it would be taken as fixed.
    """
    preset, grid = model.preset, model.preset.grid
    size, embed_dim, prompts = preset.image_size, preset.embed_dim, len(model.templates)
    widths, guide = preset.decoder_widths, preset.guidance_widths
    embed = torch.randn(1, embed_dim, grid, grid)
    text = nn.functional.normalize(torch.randn(5, prompts, embed_dim), dim=-1)
    # Three of four, so that no two axes of an example happen to agree.
    kept = torch.tensor([0, 2, 3])
    guidance = [
        torch.randn(1, width, grid * up, grid * up) for width, up in zip(guide, (2, 4, 8), strict=True)
    ]

    def features(stage: int) -> Tensor:
        side = grid * 2**stage
        return torch.randn(4, widths[stage], side, side)

    def cost(stage: int) -> Tensor:
        side = grid * 2**stage
        return torch.randn(4, guide[stage - 1], side, side)

    return [
        GraphSpec(
            "text",
            stages.TextStage(model),
            {"tokens": torch.randint(0, model.clip.vocab_size, (3, model.clip.context_length))},
            {"tokens": {0: "N"}},
            {"embedding": {0: "N"}},
        ),
        GraphSpec(
            "pixels",
            stages.PixelsStage(model),
            {"image": torch.randint(0, 256, (1, 90, 120, 3), dtype=torch.uint8)},
            {"image": {1: "H", 2: "W"}},
            {"pixels": {}},
        ),
        GraphSpec(
            "image",
            stages.ImageStage(model),
            {"pixels": torch.randn(2, 3, size, size)},
            {"pixels": {0: "B"}},
            {"embed": {0: "B"}, "guidance1": {0: "B"}, "guidance2": {0: "B"}, "guidance3": {0: "B"}},
        ),
        GraphSpec(
            "scout",
            stages.ScoutStage(model),
            {"embed": embed, "text": text},
            {"embed": {}, "text": {0: "T"}},
            {"logits0": {0: "T"}, "votes0": {1: "T"}},
        ),
        GraphSpec(
            "decode1",
            stages.Decode1Stage(model),
            {"embed": embed, "text": text, "kept0": kept, "guidance1": guidance[0]},
            {"embed": {}, "text": {0: "T"}, "kept0": {0: "K1"}, "guidance1": {}},
            {"x1": {0: "K1"}, "cost1": {0: "K1"}, "logits1": {0: "K1"}, "votes1": {1: "K1"}},
        ),
        GraphSpec(
            "decode2",
            stages.Decode2Stage(model),
            {"x1": features(1), "cost1": cost(1), "kept1": kept, "guidance2": guidance[1]},
            {"x1": {0: "K1"}, "cost1": {0: "K1"}, "kept1": {0: "K2"}, "guidance2": {}},
            {"x2": {0: "K2"}, "cost2": {0: "K2"}, "logits2": {0: "K2"}, "votes2": {1: "K2"}},
        ),
        GraphSpec(
            "decode3",
            stages.Decode3Stage(model),
            {"x2": features(2), "cost2": cost(2), "kept2": kept, "guidance3": guidance[2]},
            {"x2": {0: "K2"}, "cost2": {0: "K2"}, "kept2": {0: "K3"}, "guidance3": {}},
            {"logits": {0: "K3"}},
        ),
        GraphSpec(
            "label",
            stages.LabelStage(),
            {
                "logits": torch.randn(3, grid * 8, grid * 8),
                "kept": kept,
                "rows": torch.rand(50) * 7,
                "columns": torch.rand(60) * 7,
            },
            {"logits": {0: "K3"}, "kept": {0: "K3"}, "rows": {0: "R"}, "columns": {0: "W"}},
            {"labels": {0: "R", 1: "W"}, "scores": {0: "R", 1: "W"}},
        ),
    ]
