"""The precisions of an export: what is computed in half or 8 bits, and which islands stay FP32, and why."""

import copy
import logging
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import onnx
import torch
from onnxruntime.quantization import QuantType, quantize_dynamic
from torch import Tensor, nn

from ..errors import InputError
from ..model.decoder import CostMap, Head
from ..model.scout import Scout
from .fusions import BlockAttention, shuffled
from .stages import GraphSpec

# Of weights and activations as PyTorch traces them; `quantize` makes 8 bits of an FP32 graph.
PRECISIONS = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16, "int8": torch.float32}

# ONNX has no convolution of bfloat16 before opset 22; the others use what older versions of the engines read.
OPSETS = {"fp32": 20, "fp16": 20, "bf16": 22, "int8": 20}

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
    Island("attention sums", (BlockAttention,), "sums over hundreds of categories, and their quotient"),
    Island(
        "heads",
        (Head, Scout),
        "votes and labels follow from logits that may differ in the last bits",
        widens=True,
    ),
)


def check_precision(precision: str) -> None:
    """Refuse an unknown precision.

    Raises:
        InputError: it is none of `PRECISIONS`.
    """
    if precision not in PRECISIONS:
        raise InputError(f"precision: {precision!r} is unknown; choose one of {', '.join(PRECISIONS)}")


def stage_precision(stage: str, precision: str) -> str:
    """The precision of one stage of a bundle of `precision`: that, or "fp32"."""
    lowered = stage in INT8_STAGES if precision == "int8" else stage not in FP32_STAGES
    return precision if lowered else "fp32"


def lowered_spec(spec: GraphSpec, precision: str, left_out: Sequence[Island] = ()) -> GraphSpec:
    """How the stage of `spec`, which is FP32, is traced in one of `PRECISIONS`.

    The islands `left_out` are computed in half, to measure what they are worth.
    """
    dtype = PRECISIONS[precision]
    if dtype == torch.float32 or spec.name in FP32_STAGES:
        return spec
    inputs = {
        name: tensor.to(dtype) if tensor.is_floating_point() and name not in FP32_INPUTS else tensor
        for name, tensor in spec.inputs.items()
    }
    module = copy.deepcopy(spec.module)
    _lower(module, dtype, left_out)
    return replace(spec, module=module, inputs=inputs)


def _lower(module: nn.Module, dtype: torch.dtype, left_out: Sequence[Island]) -> None:
    """Bring the weights and the arithmetic of a module to `dtype`, but for the islands inside it."""
    for island in ISLANDS:
        if not isinstance(module, island.modules):
            continue
        if island in left_out:
            # It may take an FP32 input of the stage.
            module.register_forward_pre_hook(lambda _module, inputs: _cast(inputs, dtype))
            break
        module.register_forward_pre_hook(lambda _module, inputs: _cast(inputs, torch.float32))
        if not island.widens:
            module.register_forward_hook(lambda _module, _inputs, output: output.to(dtype))
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
            child = shuffled(child)
            module._modules[name] = child
        _lower(child, dtype, left_out)


def _cast(values: tuple[Any, ...], dtype: torch.dtype) -> tuple[Any, ...]:
    return tuple(
        value.to(dtype) if isinstance(value, Tensor) and value.is_floating_point() else value
        for value in values
    )


INT8_STAGES = {"image": "most of its time is in products with weights; of the decoder's time little is"}


def quantize_graph(path: Path, metadata: Mapping[str, str]) -> None:
    """Replace an FP32 graph by one whose products with weights are 8-bit; inputs and outputs stay FP32.

    Args:
        path: of the graph.
        metadata: goes into the new graph's metadata_props.
    """
    with tempfile.TemporaryDirectory(prefix="sed-trt-") as folder:
        quantized = Path(folder, path.name)
        # It advises, on the root logger, to run an optimiser first that this graph has no use for.
        before = logging.root.manager.disable
        logging.disable(logging.WARNING)
        try:
            quantize_dynamic(
                path,
                quantized,
                op_types_to_quantize=["MatMul"],
                per_channel=True,
                weight_type=QuantType.QInt8,
            )
        finally:
            logging.disable(before)
        model = onnx.load(quantized)
    del model.metadata_props[:], model.graph.value_info[:]
    onnx.helper.set_model_props(model, dict(metadata))
    onnx.save(model, path)
    onnx.checker.check_model(str(path))
