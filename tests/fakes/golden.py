"""The published-format checkpoint built from `fill.py`, and the reference implementation's outputs for it."""

import json
from pathlib import Path

import numpy as np
import torch

from sed_trt.tests.fakes.fill import fill

DATA = Path(__file__).parents[1] / "data"


def write_published_checkpoint(path: Path, which: str = "base") -> Path:
    """Write a detectron2-format checkpoint whose weights are `fill`'s."""
    shapes = json.loads((DATA / f"checkpoint_{which}.json").read_text())
    weights = {name: torch.from_numpy(np.asarray(fill(name, tuple(shape)))) for name, shape in shapes.items()}
    torch.save({"model": weights}, path)
    return path


def golden(name: str) -> dict[str, np.ndarray]:
    """The arrays of one golden file."""
    with np.load(DATA / f"golden_base_{name}.npz") as file:
        return {key: file[key] for key in file.files}
