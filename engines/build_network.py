"""What a parsed network says about precision; as the network is strongly typed, the engine keeps to it."""

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

_CONVOLUTIONS = {"CONVOLUTION": "IConvolutionLayer", "DECONVOLUTION": "IDeconvolutionLayer"}


@dataclass(frozen=True)
class NetworkSummary:
    """The layers of a network.

    Attributes:
        layers: how many there are; None where that is not known.
        precisions: layer type to the data type of its first output to the number of such layers.
        convolution_weights: data type to the number of weights in convolutions of it.
    """

    layers: int | None = None
    precisions: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    convolution_weights: Mapping[str, int] = field(default_factory=dict)


def summarize(module: ModuleType, network: Any) -> NetworkSummary:
    """Count the layers of a parsed network."""
    precisions: dict[str, Counter[str]] = {}
    weights: Counter[str] = Counter()
    for layer in _layers(network):
        if not layer.num_outputs:
            continue
        dtype = layer.get_output(0).dtype.name
        precisions.setdefault(layer.type.name, Counter())[dtype] += 1
        if layer.type.name in _CONVOLUTIONS:
            weights[dtype] += _kernel_size(module, layer)
    return NetworkSummary(
        network.num_layers,
        {kind: dict(counts) for kind, counts in sorted(precisions.items())},
        dict(weights),
    )


def _layers(network: Any) -> Iterator[Any]:
    return (network.get_layer(index) for index in range(network.num_layers))


def _kernel_size(module: ModuleType, layer: Any) -> int:
    if layer.num_inputs > 1:
        return math.prod(layer.get_input(1).shape)
    # The bindings hand out the base class; changing the class is how TensorRT documents the downcast.
    layer.__class__ = getattr(module, _CONVOLUTIONS[layer.type.name])
    return int(layer.kernel.size)
