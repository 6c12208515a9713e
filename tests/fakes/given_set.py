"""Small sets made in the tests, and sources without a network, all of which other processes can use too."""

import os
import signal
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sed_trt.benchmarks.accuracy.counts import SetCounts
from sed_trt.benchmarks.accuracy.labelling import GPUS_VARIABLE, Setup
from sed_trt.benchmarks.accuracy.predictors import EvaluationSource, Prediction, Predictor
from sed_trt.errors import InputError
from sed_trt.runtime import Rejection, parse_rejection
from sed_trt.train.datasets import Dataset, Sample

STUCK_FROM = "STUCK_FROM"
Label = Callable[[np.ndarray], np.ndarray]


class GivenSet(Dataset):
    """Images with the given labels; an image's value is its index."""

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
        return f"image {index}"


class DeadlySet(GivenSet):
    """Kills the process that reads the image of one index, as the system does where memory is short."""

    def __init__(self, labels: Sequence[np.ndarray], names: int, deadly: int) -> None:
        super().__init__(labels, names)
        self._deadly = deadly

    def __getitem__(self, index: int) -> Sample:
        if index == self._deadly:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__getitem__(index)


def values(image: np.ndarray) -> np.ndarray:
    """Labels that differ from image to image, 0 to 3."""
    return image[..., 0] % 4


def stuck_values(image: np.ndarray) -> np.ndarray:
    """The same, but for ever at work on the images from the one that the environment names."""
    if image[0, 0, 0] >= int(os.environ.get(STUCK_FROM, "256")):
        threading.Event().wait()
    return values(image)


def refuse(image: np.ndarray) -> np.ndarray:
    """Cannot label the image of the index 5."""
    if image[0, 0, 0] == 5:
        raise InputError("GPU: out of memory")
    return values(image)


def broken(image: np.ndarray) -> np.ndarray:
    """Fails as no source should."""
    raise ZeroDivisionError("a mistake in the program")


@dataclass(frozen=True, eq=False)
class StandIn(EvaluationSource):
    """A source that labels images by a function."""

    label: Label

    def embed(self, names: Sequence[str], progress: object) -> np.ndarray:
        return np.zeros((len(names), 1, 1), np.float32)

    def predictor(self, names: Sequence[str], text: np.ndarray, policies: Sequence[Rejection]) -> Predictor:
        assert len(text) == len(names)
        return lambda image: tuple(Prediction(self.label(image), (len(names), 3, 1)) for _ in policies)


def source_of(label: Label, runs_on: str = "nothing") -> StandIn:
    """A source that labels images by a function."""
    return StandIn("fixed", runs_on, "fp32", "sed-b", label)


@dataclass(frozen=True)
class StandInSetup(Setup):
    """Opens a stand-in for each of `labels`; writes down its GPUs and threads in the folder `notes`."""

    labels: tuple[Label, ...] = (values,)
    notes: Path | None = None
    # What the sources run on in a process that has a part of the cores, if not the same as elsewhere.
    elsewhere: str = "nothing"

    def open(self, stack: ExitStack) -> Sequence[EvaluationSource]:
        if self.notes is not None:
            note = f"{os.environ.get(GPUS_VARIABLE)} {self.threads}"
            (self.notes / str(os.getpid())).write_text(note)
        return [
            source_of(label, "nothing" if self.threads is None else self.elsewhere) for label in self.labels
        ]


def stand_in_setup(
    folder: Path, *labels: Label, policies: Sequence[str] = ("none",), **changes: Any
) -> StandInSetup:
    """A setup of stand-ins, whose empty checkpoints are written to the folder."""
    paths = [folder / f"{index}.pth" for index in range(len(labels or (values,)))]
    for path in paths:
        path.touch()
    parsed = {text: parse_rejection(text) for text in policies}
    return StandInSetup(tuple(paths), parsed, labels=labels or (values,), **changes)


def no_report(what: str, done: int, total: int) -> None:
    """Takes reports of progress."""


def same(one: SetCounts, two: SetCounts) -> bool:
    """Whether two have counted the same."""

    def arrays(counts: SetCounts) -> list[Any]:
        totals = [each for of_policy in counts.totals for each in of_policy]
        sums = [array for each in totals for array in (each.confusion.counts, each.kept, each.images)]
        return [counts.done, counts.equal, counts.pixels, *sums]

    return all(np.array_equal(*pair) for pair in zip(arrays(one), arrays(two), strict=True))
