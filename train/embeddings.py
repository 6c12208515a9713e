"""Text embeddings of the names that are trained on, cached on disk for each text encoder."""

import hashlib
import json
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from ..model import SED
from ..runtime.text import TextCache, cached_embeddings

# Changes when embeddings of the same text encoder do.
FORMAT = 1
# Names that are embedded at a time.
GROUP = 64


def embeddings(model: SED, names: Sequence[str]) -> Tensor:
    """The embeddings of names, which the folder SED_TRT_CACHE keeps for all runs with the same text encoder.

    Args:
        model: its text encoder and templates count; it is left in training mode or out of it, as it was.
        names: T category names.

    Returns:
        Unit vectors, float32 (T, P, C), on the CPU.

    Raises:
        InputError: a name is empty or too long.
    """

    def embed(missing: Sequence[str]) -> Iterator[np.ndarray]:
        lacking = set(missing)
        # Always in the same groups, whatever the cache has: the last bits may depend on them.
        for start in range(0, len(names), GROUP):
            group = names[start : start + GROUP]
            rows = [row for row, name in enumerate(group) if name in lacking]
            if rows:
                yield model.encode_vocabulary(group)[rows].cpu().numpy()

    cache = TextCache(text_encoder_digest(model), (len(model.templates), model.preset.embed_dim))
    training, precision = model.training, torch.get_float32_matmul_precision()
    # The cache serves runs on any device.
    torch.set_float32_matmul_precision("highest")
    model.eval()
    try:
        return torch.from_numpy(cached_embeddings(names, cache, embed))
    finally:
        torch.set_float32_matmul_precision(precision)
        model.train(training)


def text_encoder_digest(model: SED) -> str:
    """SHA-256 of all that the embedding of a name depends on."""
    digest = hashlib.sha256(json.dumps([FORMAT, model.templates]).encode())
    for name, value in sorted(model.clip.state_dict().items()):
        if not name.startswith("visual.") and name != "logit_scale":
            digest.update(name.encode())
            digest.update(value.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
