"""Counts kept on disk while data sets are evaluated, so that an interrupted evaluation goes on."""

import hashlib
import json
import shutil
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...bundle import MANIFEST_FILE
from ...errors import InputError
from ...files import is_file, is_folder, make_folder, replacing, resolved
from ...train.datasets import Dataset
from ...train.datasets.files import FileDataset
from .counts import SetCounts

# A data set, and the indices of the pictures that are chosen of it.
Chosen = tuple[Dataset, Sequence[int]]
# Begins the names of temporary folders, which a killed evaluation leaves behind.
SCRATCH = "sed-trt-"
# What numpy and zipfile raise on a file that is damaged or none of ours.
_DAMAGED = (OSError, ValueError, KeyError, EOFError, TypeError, RuntimeError, zipfile.BadZipFile, zlib.error)


@dataclass(frozen=True, eq=False)
class SavedSet:
    """The file of one data set.

    Attributes:
        path: of the file.
        chosen: the set and its pictures.
        stamps: int64 (N, 4), size and time of change of each picture's files, see `stamps_of`.
    """

    path: Path
    chosen: Chosen
    stamps: np.ndarray

    def load(self, counts: SetCounts) -> None:
        """Fill new counts with what `save` wrote; where there is no file they stay as they are.

        Raises:
            InputError: it cannot be read, or a picture changed after it was counted.
        """
        if not is_file(self.path):
            return
        try:
            with np.load(self.path) as arrays:
                changed = (arrays["stamps"] != self.stamps).any(1)
                counts.restore(arrays)
        except _DAMAGED as error:
            raise InputError(
                f"{self.path}: cannot be read as the progress of an evaluation ({error}); remove it to start "
                "anew"
            ) from error
        found = np.flatnonzero(counts.done & changed)
        if len(found):
            dataset, indices = self.chosen
            raise InputError(
                f"{self.path}: counts {dataset.identity(indices[found[0]])} as it was before that or its "
                "labels changed; remove the file to start anew"
            )

    def save(self, counts: SetCounts) -> None:
        """Write the counts, whole or not at all; raises InputError where the folder cannot be written."""
        arrays: dict[str, Any] = {"stamps": self.stamps, **counts.arrays()}
        with replacing(self.path) as temporary:
            np.savez_compressed(temporary, **arrays)


class SavedCounts:
    """One file in a folder for each data set, named by the digest of what is evaluated on it.

    Attributes:
        folder: made when an evaluation begins, removed when nothing is kept there.
    """

    def __init__(self, folder: Path, note: Callable[[str], None]) -> None:
        """`note` is told of files there that hold the progress of other evaluations."""
        self.folder = folder
        self._note = note
        self._used: list[Path] = []

    @contextmanager
    def begun(self, settings: Mapping[str, Any], sets: Sequence[Chosen]) -> Iterator[Sequence[SavedSet]]:
        """Make the folder, and give the file of each set; an empty folder is removed in the end.

        Args:
            settings: of the evaluation, see `digest`.
            sets: what is evaluated.

        Raises:
            InputError: the folder cannot be made or written.
        """
        try:
            make_folder(self.folder)
            self._used = [self.folder / f"{digest(settings, *each)[:32]}.npz" for each in sets]
            # A dot begins the names of files that a killed process was writing.
            for path in sorted(set(self.folder.glob("[!.]*.npz")).difference(self._used)):
                self._note(f"{path}: belongs to another evaluation and is not used")
            yield [
                SavedSet(path, each, stamps_of(*each)) for path, each in zip(self._used, sets, strict=True)
            ]
        finally:
            with suppress(OSError):
                self.folder.rmdir()

    def remove(self) -> None:
        """Remove the files of this evaluation, and the folder if no other is kept there."""
        for path in self._used:
            path.unlink(missing_ok=True)
        with suppress(OSError):
            for path in self.folder.glob(".*.npz"):
                path.unlink()
            for path in self.folder.glob(f"{SCRATCH}*"):
                shutil.rmtree(path)
            self.folder.rmdir()


def digest(settings: Mapping[str, Any], dataset: Dataset, chosen: Sequence[int]) -> str:
    """A key, in hexadecimal, that differs where the counts of two evaluations could.

    Args:
        settings: of the evaluation, as JSON can hold them.
        dataset: its names, classes and the paths of its pictures count; `stamps_of` is for what is in them.
        chosen: indices of the pictures.
    """
    recipe = {
        "settings": settings,
        "data": [dataset.name, dataset.split, dataset.names, dataset.classes, dataset.max_short_side],
        "scored_as": dataset.scored_as.tolist(),
        "pictures": [
            [str(resolved(file)) for file in _files(dataset, index)] or dataset.identity(index)
            for index in chosen
        ],
    }
    return hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()


def stamps_of(dataset: Dataset, chosen: Sequence[int]) -> np.ndarray:
    """Size in bytes and time of change in ns of each picture and of its labels, int64 (N, 4).

    They are 0 for pictures that are drawn, and for files that are not there.
    """
    stamps = np.zeros((len(chosen), 4), dtype=np.int64)
    for row, index in zip(stamps, chosen, strict=True):
        for place, file in enumerate(_files(dataset, index)):
            with suppress(OSError):
                found = file.stat()
                row[2 * place : 2 * place + 2] = found.st_size, found.st_mtime_ns
    return stamps


def source_digest(path: Path) -> str:
    """SHA-256 of a checkpoint file, or of a bundle's manifest, which holds those of its files.

    Raises:
        InputError: it cannot be read.
    """
    file = path / MANIFEST_FILE if is_folder(path) else path
    try:
        with file.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror}); check the path") from error


def _files(dataset: Dataset, index: int) -> tuple[Path, ...]:
    """The files of a picture and of its labels; none where it is drawn."""
    if not isinstance(dataset, FileDataset):
        return ()
    item = dataset.source.listing.items[index]
    return item.image, item.label
