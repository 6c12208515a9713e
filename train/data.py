"""Captioned scenes as a PyTorch data set; each item is drawn when asked for, from its index alone."""

from collections.abc import Sized
from typing import Any, TypeVar, cast

import numpy as np
import open_clip
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from .crops import caption_crops
from .scenes import VOCABULARY

Item = TypeVar("Item")

# Scene seeds below these are for segmentation; the pre-training must not see the same pictures.
CAPTION_SEEDS = 1_000_000_000


class CaptionedCrops(Dataset[tuple[Tensor, Tensor, Tensor]]):
    """Several crops of one scene.

    Pictures, uint8 (N, S, S, 3), their captions' tokens, int64 (N, context length), and what they show,
    bool (N, T) over the scenes' vocabulary.
    """

    def __init__(self, length: int, crops: int, size: int, context_length: int, seed: int) -> None:
        self.length, self.crops, self.size = length, crops, size
        self.first = CAPTION_SEEDS + seed * length
        self.tokenizer = open_clip.SimpleTokenizer(context_length=context_length)

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, Tensor]:
        crops = caption_crops(self.first + index, self.crops, self.size)
        images = np.stack([crop.image for crop in crops])
        content = torch.zeros(len(crops), len(VOCABULARY), dtype=torch.bool)
        for row, crop in zip(content, crops, strict=True):
            row[list(crop.names)] = True
        return torch.from_numpy(images), self.tokenizer([crop.caption for crop in crops]), content


def batches(dataset: Dataset[Item], batch: int, workers: int, first: int = 0) -> DataLoader[Item]:
    """The data set in order, in batches from number `first` on, drawn ahead by `workers` processes."""
    rest = range(first * batch, len(cast(Sized, dataset)))
    return read_ahead(dataset, workers, 8, batch_size=batch, sampler=rest)


def read_ahead(dataset: Dataset[Item], workers: int, ahead: int, **how: Any) -> DataLoader[Any]:
    """A loader whose `workers` processes keep `ahead` batches each ready; `how` is PyTorch's own."""
    return DataLoader(
        dataset,
        num_workers=workers,
        worker_init_fn=one_thread if workers else None,
        prefetch_factor=ahead if workers else None,
        # Its own random numbers, which only seed the workers', must leave the global ones alone.
        generator=torch.Generator(),
        **how,
    )


def one_thread(_worker: int) -> None:
    """Leave the other cores to the training."""
    torch.set_num_threads(1)
