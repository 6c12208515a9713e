"""Embeddings of the names that are trained on: made once for a text encoder, then kept on disk."""

import hashlib
import json
import logging
from collections.abc import Sequence

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..errors import InputError
from ..files import is_file, replacing
from ..model import SED
from ..runtime.text import cache_folder

_FORMAT = 1
_KEY = "text"
_logger = logging.getLogger(__name__)


def embeddings(model: SED, names: Sequence[str]) -> Tensor:
    """The embeddings of names, from the folder SED_TRT_CACHE where they were made before.

    Args:
        model: its text encoder and templates count; it is left in training mode or out of it, as it was.
        names: T category names.

    Returns:
        Unit vectors, float32 (T, P, C), on the CPU.

    Raises:
        InputError: a name is empty or too long.
    """
    path = cache_folder() / "training" / f"{digest(model, names)[:32]}.safetensors"
    shape = (len(names), len(model.templates), model.preset.embed_dim)
    if is_file(path):
        try:
            kept = load_file(path)[_KEY]
            if kept.shape == shape:
                return kept
        except (OSError, SafetensorError, KeyError) as error:
            _logger.info("%s: cannot be read (%s); its embeddings are made again", path, error)
    training, precision = model.training, torch.get_float32_matmul_precision()
    # They are kept for runs on any device.
    torch.set_float32_matmul_precision("highest")
    made = model.eval().encode_vocabulary(names).cpu().contiguous()
    torch.set_float32_matmul_precision(precision)
    model.train(training)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            save_file({_KEY: made}, temporary)
    except (OSError, InputError, SafetensorError) as error:
        _logger.warning("the names' embeddings are not kept: %s", error)
    return made


def digest(model: SED, names: Sequence[str]) -> str:
    """SHA-256 of everything that the embeddings depend on."""
    found = hashlib.sha256(json.dumps([_FORMAT, model.templates, list(names)]).encode())
    for name, value in sorted(model.clip.state_dict().items()):
        if not name.startswith("visual.") and name != "logit_scale":
            found.update(name.encode())
            found.update(value.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()
