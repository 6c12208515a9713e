"""Vocabularies of any size with random embeddings, which need no run of the text encoder."""

import numpy as np

from ..bundle import Manifest
from ..runtime import Vocabulary

# Weight of what the templates of one category have in common, against 1 for what each has alone.
_SHARED = 2.0


def random_text(categories: int, templates: int, width: int) -> np.ndarray:
    """Unit vectors, float32 (categories, templates, width); those of one category lie near each other."""
    random = np.random.default_rng(0)
    text = random.standard_normal((categories, templates, width), dtype=np.float32)
    text += _SHARED * random.standard_normal((categories, 1, width), dtype=np.float32)
    unit: np.ndarray = text / np.linalg.norm(text, axis=-1, keepdims=True)
    return unit


def random_vocabulary(manifest: Manifest, count: int) -> Vocabulary:
    """`count` categories with random embeddings of the bundle's shape."""
    names = tuple(f"category {number}" for number in range(count))
    return Vocabulary(names, random_text(count, len(manifest.templates), manifest.embed_dim))
