"""The precisions of an export: how a stage is lowered to half or 8 bits, and what in it stays FP32."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import InputError
from ..model.decoder import CostMap, Head
from ..model.scout import Fold, Scout, UnitLength
from ..stages import COMPUTE, StageDefinition
from .convnext import ChannelNorm
from .fusions import BlockAttention, as_pixel_shuffle, elu_plus_one_by_cases
from .stages import GraphSpec

# The dtype in which PyTorch traces a lowered stage; `quantize_graph` then makes the 8-bit graph.
PRECISIONS = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16, "int8": torch.float32}

# ONNX has no convolution of bfloat16 before opset 22; the others use what older versions of the engines read.
OPSETS = {"fp32": 20, "fp16": 20, "bf16": 22, "int8": 20}


@dataclass(frozen=True)
class Island:
    """A kind of module that computes in FP32 inside a half-precision stage.

    Attributes:
        name: of the island.
        modules: types of the modules.
        reason: why half is not enough.
        fp32_output: whether their outputs stay FP32; otherwise they are rounded to half.
    """

    name: str
    modules: tuple[type[nn.Module], ...]
    reason: str
    fp32_output: bool = False


ISLANDS = (
    Island(
        "layer norm",
        (nn.LayerNorm, ChannelNorm),
        "the sum of squares overflows FP16 once activations exceed 256",
    ),
    Island("group norm", (nn.GroupNorm,), "as layer norm, over a whole map"),
    Island(
        "cosine",
        (CostMap, UnitLength, Fold),
        "the length of the embedding is a sum of squares; text is FP32 anyway",
    ),
    Island("attention sums", (BlockAttention,), "sums over hundreds of categories, and their quotient"),
    Island(
        "heads",
        (Head, Scout),
        "votes and labels follow from logits that may differ in the last bits",
        fp32_output=True,
    ),
)


def check_precision(precision: str) -> None:
    """Refuse an unknown precision.

    Raises:
        InputError: it is none of `PRECISIONS`.
    """
    if precision not in PRECISIONS:
        raise InputError(f"precision: {precision!r} is unknown; choose one of {', '.join(PRECISIONS)}")


def stage_precision(stage: StageDefinition, precision: str) -> str:
    """The precision of one stage in a bundle of `precision`: that, or "fp32"."""
    lowered = stage.int8_reason is not None if precision == "int8" else stage.fp32_reason is None
    return precision if lowered else "fp32"


def lower_spec(spec: GraphSpec, precision: str, half_islands: Sequence[Island] = ()) -> GraphSpec:
    """The spec that the stage of an FP32 `spec` is traced from in one of `PRECISIONS`.

    Args:
        spec: in FP32; it is left unchanged.
        precision: one of `PRECISIONS`.
        half_islands: islands to compute in half all the same, to measure what they are worth.
    """
    dtype = PRECISIONS[precision]
    if dtype == torch.float32 or spec.stage.fp32_reason is not None:
        return spec
    inputs = {
        tensor.name: spec.inputs[tensor.name].to(dtype)
        if tensor.dtype == COMPUTE
        else spec.inputs[tensor.name]
        for tensor in spec.stage.inputs
    }
    module = copy.deepcopy(spec.module)
    _lower(module, dtype, half_islands)
    return replace(spec, module=module, inputs=inputs)


def _lower(module: nn.Module, dtype: torch.dtype, half_islands: Sequence[Island]) -> None:
    """Bring the weights and the arithmetic of a module to `dtype`, except in the islands inside it."""
    if dtype == torch.bfloat16 and isinstance(module, BlockAttention):
        module.feature_map = elu_plus_one_by_cases
    for island in ISLANDS:
        if not isinstance(module, island.modules):
            continue
        if island in half_islands:
            # It may take an FP32 input of the stage.
            module.register_forward_pre_hook(lambda _module, inputs: _cast(inputs, dtype))
            break
        module.register_forward_pre_hook(lambda _module, inputs: _cast(inputs, torch.float32))
        if not island.fp32_output:
            module.register_forward_hook(lambda _module, _inputs, output: _rounded(output, dtype))
        return
    # Not module.to, which would reach into the islands.
    for name, parameter in module._parameters.items():
        if parameter is not None:
            module._parameters[name] = nn.Parameter(parameter.to(dtype), requires_grad=False)
    for name, buffer in module._buffers.items():
        if buffer is not None and buffer.is_floating_point():
            module._buffers[name] = buffer.to(dtype)
    for name, child in module.named_children():
        if dtype == torch.bfloat16 and isinstance(child, nn.ConvTranspose2d) and child.stride == (2, 2):
            # TensorRT-RTX has no transposed convolution of bfloat16.
            child = as_pixel_shuffle(child)
            module._modules[name] = child
        _lower(child, dtype, half_islands)


def _rounded(output: Any, dtype: torch.dtype) -> Any:
    """What a module gives, one tensor or several, as `dtype`."""
    return _cast(output, dtype) if isinstance(output, tuple) else output.to(dtype)


def _cast(values: tuple[Any, ...], dtype: torch.dtype) -> tuple[Any, ...]:
    """The arguments of a module with floating-point tensors as `dtype`."""
    return tuple(
        value.to(dtype) if isinstance(value, Tensor) and value.is_floating_point() else value
        for value in values
    )
