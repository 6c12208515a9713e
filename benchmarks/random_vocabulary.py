"""A vocabulary of any size without a run of the text encoder."""

from ..bundle import Manifest
from ..runtime import Vocabulary
from .gpu_check_steps import random_text


def random_vocabulary(manifest: Manifest, count: int) -> Vocabulary:
    """So many categories with random embeddings of a bundle's shape."""
    names = tuple(f"category {number}" for number in range(count))
    return Vocabulary(names, random_text(count, len(manifest.templates), manifest.embed_dim))
