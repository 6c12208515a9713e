"""For each stage: its module, inputs to trace it with, and the names of everything that goes in and out."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..model import SED
from . import stages


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
