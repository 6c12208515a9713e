"""The reference implementation's outputs for sed-b with known weights, and the text that it was given."""

from pathlib import Path

import numpy as np

DATA = Path(__file__).parents[1] / "data"


def golden(name: str) -> dict[str, np.ndarray]:
    """The arrays of one golden file."""
    with np.load(DATA / f"golden_base_{name}.npz") as file:
        return {key: file[key] for key in file.files}


def random_text(seed: int, categories: int, width: int) -> np.ndarray:
    """Text embeddings without a text encoder: unit vectors (categories, 80, width).

    The templates of one category are near each other.
    """
    each = np.random.default_rng(seed).standard_normal((categories, 80, width)).astype(np.float32)
    shared = np.random.default_rng(seed + 1).standard_normal((categories, 1, width)).astype(np.float32) * 2
    text = each + shared
    return text / np.linalg.norm(text, axis=-1, keepdims=True)
