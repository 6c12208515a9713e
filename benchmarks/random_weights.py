"""A checkpoint of any preset with random weights, to measure speed and exactness without trained ones.

python -m sed_trt.benchmarks.random_weights sed-b sed-b.safetensors
"""

import math
import sys
from pathlib import Path

import torch
from torch import nn

from ..model import SED, preset_named
from ..model.checkpoint import save


def random_network(preset: str) -> SED:
    """A network of this preset whose activations stay in the range of a trained one, the same every time.

    Raises:
        InputError: the preset is unknown.
    """
    sizes = preset_named(preset)
    torch.manual_seed(0)
    network = SED(sizes).eval()
    for name, parameter in network.named_parameters():
        # The text tower keeps the weights that open_clip initialises it with.
        if not name.startswith("clip.") or name.startswith("clip.visual."):
            _randomise(name, parameter)
    return network


def _randomise(name: str, parameter: nn.Parameter) -> None:
    # timm initialises layer scale near zero, so that blocks would do nothing and hide every error.
    if name.endswith("gamma"):
        nn.init.normal_(parameter, 0.3, 0.1)
    elif parameter.ndim >= 2:
        # The weights of a transposed convolution have their input channels first.
        transposed = name.endswith(".up.weight") or "corr_guidance_projection" in name
        fan_in = parameter.shape[0] if transposed else math.prod(parameter.shape[1:])
        nn.init.normal_(parameter, 0.0, fan_in**-0.5)
    else:
        nn.init.normal_(parameter, 1.0 if name.endswith("weight") else 0.0, 0.1)


if __name__ == "__main__":
    save(random_network(sys.argv[1]), Path(sys.argv[2]))
