"""A checkpoint in the published format with known weights, for measurements and tests without a trained one.

    python -m sed_trt.benchmarks.known_weights sed-b.pth sed-b

The weights are random, but the same on every machine. They keep the activations of the image tower, the text
tower and the decoder in a normal range; the network recognises nothing.
"""

import sys
import zlib
from pathlib import Path

import numpy as np
import torch

from ..errors import InputError
from ..files import replacing
from ..model import SED, preset_named
from ..model.checkpoint import published_name


def write_known_checkpoint(path: Path, preset: str = "sed-b") -> Path:
    """Write a detectron2-format checkpoint of a preset whose weights are those of `known_weight`.

    Raises:
        InputError: the preset is unknown, or the file cannot be written.
    """
    # No values are needed, only names and shapes.
    with torch.device("meta"):
        parameters = SED(preset_named(preset)).state_dict()
    shapes = {published_name(name): tuple(parameter.shape) for name, parameter in parameters.items()}
    weights = {name: torch.from_numpy(known_weight(name, shape)) for name, shape in shapes.items()}
    with replacing(path) as temporary:
        torch.save({"model": weights}, temporary)
    return path


def known_weight(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """The weights, float32 of `shape`, of the parameter `name`, its full key in a published checkpoint."""
    if name.endswith("logit_scale"):
        return np.full(shape, 4.6052, dtype=np.float32)
    generator = np.random.Generator(np.random.Philox(key=zlib.crc32(name.encode())))
    noise = np.asarray(generator.standard_normal(shape)).astype(np.float32)
    if name.endswith("gamma"):
        # ConvNeXt's layer scale.
        return 0.3 + 0.1 * noise
    if len(shape) >= 2:
        if name.endswith("positional_embedding"):
            return 0.02 * noise
        if name.endswith("token_embedding.weight"):
            # Large, so that the embeddings of different names are far apart.
            return noise
        inputs_first = name.endswith((".up.weight", "text_projection")) or "corr_guidance_projection" in name
        fan_in = shape[0] if inputs_first else int(np.prod(shape[1:]))
        return noise / np.sqrt(np.float32(fan_in))
    if name.endswith("weight"):
        # The scale of a norm.
        return 1.0 + 0.1 * noise
    return 0.1 * noise


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python -m sed_trt.benchmarks.known_weights FILE PRESET")
    try:
        write_known_checkpoint(Path(sys.argv[1]), sys.argv[2])
    except InputError as error:
        sys.exit(f"sed-trt: error: {error}")
