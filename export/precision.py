"""The precisions of an export: what is computed in half, and which islands stay FP32, and why."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import InputError
from ..model.attention import KernelAttention
from ..model.cost import CostMap
from ..model.decoder import Head
from .graph_specs import GraphSpec

PRECISIONS = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}

# ONNX has no convolution of bfloat16 before opset 22; the others use what older versions of the engines read.
OPSETS = {"fp32": 20, "fp16": 20, "bf16": 22}

FP32_STAGES = {
    "text": "runs once per vocabulary, so half would save nothing that anyone waits for",
    "pixels": "is a resize of a byte picture, without weights; `image` rounds what it gives",
    "label": "compares probabilities, which in half are often equal",
}

# Made by the host or by an FP32 stage; the stage that takes them rounds where it must.
FP32_INPUTS = ("pixels", "text")


@dataclass(frozen=True)
class Island:
    """Modules that compute in FP32 inside a half-precision stage.

    Attributes:
        name: of the island.
        modules: their types.
        reason: why half is not enough.
        widens: whether what they give stays FP32; otherwise it is rounded to half again.
    """

    name: str
    modules: tuple[type[nn.Module], ...]
    reason: str
    widens: bool = False


ISLANDS = (
    Island("layer norm", (nn.LayerNorm,), "the sum of squares overflows FP16 once activations exceed 256"),
    Island("group norm", (nn.GroupNorm,), "as layer norm, over a whole map"),
    Island("cosine", (CostMap,), "the length of the embedding is a sum of squares; text is FP32 anyway"),
    Island("attention sums", (KernelAttention,), "sums over hundreds of categories, and their quotient"),
    Island(
        "heads", (Head,), "votes and labels follow from logits that may differ in the last bits", widens=True
    ),
)


def check_precision(precision: str) -> None:
    """Refuse an unknown precision.

    Raises:
        InputError: it is none of `PRECISIONS`.
    """
    if precision not in PRECISIONS:
        raise InputError(f"precision: {precision!r} is unknown; choose one of {', '.join(PRECISIONS)}")


def lowered_spec(spec: GraphSpec, precision: str, islands: Sequence[Island] = ISLANDS) -> GraphSpec:
    """How the stage of `spec`, which is FP32, is exported in one of `PRECISIONS`."""
    if precision == "fp32" or spec.name in FP32_STAGES:
        return spec
    dtype = PRECISIONS[precision]
    inputs = {
        name: tensor.to(dtype) if tensor.is_floating_point() and name not in FP32_INPUTS else tensor
        for name, tensor in spec.inputs.items()
    }
    return replace(spec, module=lowered(spec.module, dtype, islands), inputs=inputs)


def lowered(stage: nn.Module, dtype: torch.dtype, islands: Sequence[Island] = ISLANDS) -> nn.Module:
    """A copy of a stage whose weights and arithmetic are of `dtype`, but for the islands."""
    stage = copy.deepcopy(stage)
    _lower(stage, dtype, islands)
    return stage


def _lower(module: nn.Module, dtype: torch.dtype, islands: Sequence[Island]) -> None:
    for island in islands:
        if isinstance(module, island.modules):
            module.register_forward_pre_hook(lambda _module, inputs: _cast(inputs, torch.float32))
            if not island.widens:
                module.register_forward_hook(lambda _module, _inputs, output: output.to(dtype))
            return
    if any(isinstance(module, island.modules) for island in ISLANDS):
        # An island left out computes in half even where it takes an FP32 input of the stage.
        module.register_forward_pre_hook(lambda _module, inputs: _cast(inputs, dtype))
    # Not module.to, which would reach into the islands.
    for name, parameter in module._parameters.items():
        if parameter is not None:
            module._parameters[name] = nn.Parameter(parameter.to(dtype), requires_grad=False)
    for name, buffer in module._buffers.items():
        if buffer is not None and buffer.is_floating_point():
            module._buffers[name] = buffer.to(dtype)
    for child in module.children():
        _lower(child, dtype, islands)


def _cast(values: tuple[Any, ...], dtype: torch.dtype) -> tuple[Any, ...]:
    return tuple(
        value.to(dtype) if isinstance(value, Tensor) and value.is_floating_point() else value
        for value in values
    )
