"""Small sets made in the tests, which other processes can read too, and sources that label by a function."""

import os
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from sed_trt.benchmarks.accuracy.predictors import Prediction, Predictor, Source
from sed_trt.runtime import Rejection
from sed_trt.train.datasets import Dataset, Sample

PATIENCE_S = 120


class GivenSet(Dataset):
    """Pictures with the given labels; a picture's value is its index."""

    def __init__(self, labels: Sequence[np.ndarray], names: int, max_short_side: int | None = None) -> None:
        self.name, self.split = "given", "val"
        self.names = self.classes = tuple(f"name {index}" for index in range(names))
        self.scored_as = np.arange(names, dtype=np.int32)
        self.max_short_side = max_short_side
        self._labels = labels

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> Sample:
        labels = self._labels[index]
        return Sample(np.full((*labels.shape, 3), index, np.uint8), labels)

    def identity(self, index: int) -> str:
        return f"picture {index}"


class WatchedSet(GivenSet):
    """A picture for each process, which notes in `folder` what it was given: its GPUs and threads."""

    def __init__(self, folder: Path, processes: int) -> None:
        super().__init__([np.zeros((8, 8), np.int32)] * processes, 3)
        self._folder = folder

    def __getitem__(self, index: int) -> Sample:
        import torch

        gpus = os.environ.get("CUDA_VISIBLE_DEVICES")
        (self._folder / str(os.getpid())).write_text(f"{gpus} {torch.get_num_threads()}")
        deadline = time.monotonic() + PATIENCE_S
        # Whoever is ready first must not take all pictures.
        while len(list(self._folder.iterdir())) < len(self):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        return super().__getitem__(index)


class DeadlySet(GivenSet):
    """Kills the process that reads it, as the system does where memory is short."""

    def __getitem__(self, index: int) -> Sample:
        os.kill(os.getpid(), signal.SIGKILL)
        return super().__getitem__(index)


def source_of(label: Callable[[np.ndarray], np.ndarray]) -> Source:
    """A source that labels pictures by a function."""

    def with_text(names: Sequence[str], text: np.ndarray, policies: Sequence[Rejection]) -> Predictor:
        return lambda image: tuple(Prediction(label(image), (len(names), 3, 1)) for _ in policies)

    def embed(names: Sequence[str], progress: object) -> np.ndarray:
        return np.zeros((len(names), 1, 1), np.float32)

    return Source("fixed", "nothing", "fp32", "sed-b", embed, with_text, None)
