"""8-bit products: the ranges of a stage's activations on calibration images, and the graph that has them.

The pointwise convolutions of the image tower are quantised: weights by output channel, symmetric; activations
by tensor, from the smallest to the largest value that the calibration images give. A layer whose own error is
large keeps the precision of the rest of the graph. ONNX Runtime's quantiser writes the graph.
"""

import contextlib
import logging
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)
from torch import Tensor, nn

from ..errors import InputError
from ..model.labels import to_pixels
from .convnext import PointwiseMlp
from .stages import GraphSpec

# Largest error of one layer's products by rounding to 8 bits, relative to their root mean square. On scenes
# it is 0.5 to 1.4 % in sed-tiny and 1 to 2 % in sed-b with known weights; a layer with outlying activations,
# whose range leaves few steps for the others, has more.
LAYER_LIMIT = 0.04
# Of the calibration images, those that the errors of the layers are measured on.
_ERROR_IMAGES = 2
_STEPS = 255


@dataclass(frozen=True)
class LayerError:
    """The error that 8 bits give one layer.

    Attributes:
        name: of the layer's module.
        error: root mean square of the products' errors, relative to that of the products.
    """

    name: str
    error: float

    @property
    def quantised(self) -> bool:
        """Whether the layer is computed in 8 bits."""
        return self.error <= LAYER_LIMIT


def calibration_pixels(images: Sequence[np.ndarray], size: int) -> list[Tensor]:
    """The network's inputs, float32 (1, 3, size, size), of images, uint8 (H, W, 3).

    Raises:
        InputError: there are none.
    """
    if not images:
        raise InputError(
            "calibration: no images are given, expected at least one; leave it out for the default"
        )
    return [to_pixels(torch.from_numpy(image).unsqueeze(0), size) for image in images]


def quantize_graph(
    path: Path, spec: GraphSpec, pixels: Sequence[Tensor], metadata: Mapping[str, str]
) -> list[LayerError]:
    """Replace the FP32 graph of the stage `image` by one with 8-bit products; inputs and outputs stay FP32.

    Args:
        path: of the graph.
        spec: the stage in FP32, which the graph was traced from.
        pixels: calibration inputs, float32 (1, 3, S, S).
        metadata: the new graph's metadata_props.

    Returns:
        The errors of the layers, in the order that they run.

    Raises:
        InputError: no layer stays within `LAYER_LIMIT`.
    """
    errors = layer_errors(spec.module, pixels[:_ERROR_IMAGES])
    nodes = pointwise_nodes(onnx.load(path))
    assert len(nodes) == len(errors), "each layer is one convolution of the graph, in the same order"
    chosen = [node for node, layer in zip(nodes, errors, strict=True) if layer.quantised]
    if not chosen:
        raise InputError(
            f"calibration: 8 bits change the products of every layer by more than {LAYER_LIMIT:.0%}; export "
            "with --precision bf16 or fp32, or give images like those that will be segmented"
        )
    with tempfile.TemporaryDirectory(prefix="sed-trt-") as folder:
        quantized = Path(folder, path.name)
        with _quiet():
            quantize_static(
                path,
                quantized,
                _Reader(pixels),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=["Conv"],
                nodes_to_quantize=chosen,
                per_channel=True,
                # GELU gives values from -0.17 on: a range around zero would waste half of the steps.
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                calibrate_method=CalibrationMethod.MinMax,
                extra_options={"OpTypesToExcludeOutputQuantization": ["Conv"]},
            )
        model = onnx.load(quantized)
    del model.metadata_props[:], model.graph.value_info[:]
    layers = {"layers_in_8_bits": f"{len(chosen)} of {len(errors)}"}
    onnx.helper.set_model_props(model, {**metadata, **layers})
    onnx.save(model, path)
    onnx.checker.check_model(str(path))
    return errors


def pointwise_layers(module: nn.Module) -> Iterator[tuple[str, nn.Conv2d]]:
    """Name and convolution of the layers that may be quantised, in the order that they run."""
    for name, child in module.named_modules():
        if isinstance(child, PointwiseMlp):
            for part, layer in child.named_children():
                if isinstance(layer, nn.Conv2d):
                    yield f"{name}.{part}", layer


def pointwise_nodes(model: onnx.ModelProto) -> list[str]:
    """Names of the 1x1 convolutions of a graph with constant weights, in their order."""
    sizes = {tensor.name: list(tensor.dims) for tensor in model.graph.initializer}
    return [
        node.name
        for node in model.graph.node
        if node.op_type == "Conv" and sizes.get(node.input[1], [])[2:] == [1, 1]
    ]


def layer_errors(module: nn.Module, pixels: Sequence[Tensor]) -> list[LayerError]:
    """The largest error that 8 bits give each layer alone, over inputs, float32 (1, 3, S, S)."""
    layers = list(pointwise_layers(module))
    errors: dict[str, float] = {name: 0.0 for name, _ in layers}

    def watch(name: str, layer: nn.Conv2d) -> Any:
        def measure(_module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
            errors[name] = max(errors[name], rounding_error(layer, inputs[0], output))

        return layer.register_forward_hook(measure)

    hooks = [watch(name, layer) for name, layer in layers]
    try:
        with torch.no_grad():
            for image in pixels:
                module(image)
    finally:
        for hook in hooks:
            hook.remove()
    return [LayerError(name, error) for name, error in errors.items()]


def rounding_error(layer: nn.Conv2d, x: Tensor, output: Tensor) -> float:
    """Error of `output`, the layer's for `x`, where both factors are rounded to 8 bits; see `LayerError`."""
    low, high = min(0.0, float(x.min())), max(0.0, float(x.max()))
    step = (high - low) / _STEPS or 1.0
    zero = round(-low / step)
    activations = ((x / step).round() + zero).clamp(0, _STEPS).sub(zero) * step
    steps = (layer.weight.abs().amax((1, 2, 3), keepdim=True) / 127).clamp(min=torch.finfo(x.dtype).tiny)
    weight = (layer.weight / steps).round() * steps
    bias = cast(Tensor, layer.bias)
    difference = F.conv2d(activations, weight, bias) - output
    products = output - bias.view(-1, 1, 1)
    return float(difference.square().mean().sqrt() / products.square().mean().sqrt().clamp(min=1e-30))


class _Reader(CalibrationDataReader):
    """Gives the quantiser its inputs, one image at a time."""

    def __init__(self, pixels: Sequence[Tensor]) -> None:
        self._inputs = iter([{"pixels": image.numpy()} for image in pixels])

    def get_next(self) -> dict[str, np.ndarray] | None:
        """The next inputs; None at the end."""
        return next(self._inputs, None)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the quantiser's advice, which it logs on the root logger, from the user."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
