"""Text embeddings kept on disk, found again by what they were made of."""

import hashlib
import json
import logging
import os
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import platformdirs

from ..atomic import replacing
from ..engines.bundle import TOKENIZER_FILE, Manifest
from ..errors import InputError

CACHE_VARIABLE = "SED_TRT_CACHE"

_logger = logging.getLogger(__name__)


def cache_folder() -> Path:
    """The folder of the environment variable SED_TRT_CACHE, else sed-trt's folder in the user's cache."""
    chosen = os.environ.get(CACHE_VARIABLE)
    return Path(chosen) if chosen else platformdirs.user_cache_path("sed-trt")


def cache_file(manifest: Manifest, names: Sequence[str]) -> Path:
    """Where the embeddings of `names` are kept: by a hash of text graph, tokenizer, templates and names."""
    parts = [
        manifest.files[manifest.stages["text"].file].sha256,
        manifest.files[TOKENIZER_FILE].sha256,
        manifest.templates,
        list(names),
    ]
    key = hashlib.sha256(json.dumps(parts).encode()).hexdigest()
    return cache_folder() / "text" / f"{key}.npz"


def load_text(path: Path, shape: tuple[int, int, int]) -> np.ndarray | None:
    """Kept embeddings, float32 (T, P, C), or None when there are none or they are damaged."""
    try:
        # An npz is a zip, whose checksum finds damage that a plain npy would hide.
        with np.load(path, allow_pickle=False) as stored:
            text = stored["text"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    return text if text.shape == shape and text.dtype == np.float32 else None


def store_text(path: Path, text: np.ndarray) -> None:
    """Keep embeddings for the next time; a cache that cannot be written is logged, not an error."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            np.savez(temporary, text=text)
    except (OSError, InputError) as error:
        _logger.warning("text embeddings are not cached: %s", error)
