"""The progress of an evaluation on disk: one record for each image, in files that are only appended to.

Every process that labels images appends to a file of its own, `<key>-<random>.jsonl`, so that neither
processes nor machines wait for each other. A record is one line: the CRC-32 of a JSON text, and the text. A
killed process may leave its last line without a line break; that image is counted again. Any other line that
does not match its checksum is damage and is refused. To resume, and to merge what several processes counted,
all files of the evaluation's key are read.
"""

import hashlib
import json
import os
import shutil
import uuid
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from ...bundle import MANIFEST_FILE
from ...errors import InputError
from ...files import is_folder, make_folder, resolved
from ...train.datasets import Dataset
from ...train.datasets.files import FileDataset
from .counts import ImageCounts, SetCounts

# Begins the names of temporary folders, which a killed evaluation leaves behind.
SCRATCH = "sed-trt-"
_SUFFIX = ".jsonl"


@dataclass(frozen=True, eq=False)
class ChosenImages:
    """The images of a data set that are evaluated, by their indices."""

    dataset: Dataset
    indices: Sequence[int]

    def identity(self, position: int) -> str:
        """The name, in messages, of the image at this place among the chosen ones."""
        return self.dataset.identity(self.indices[position])

    def files(self, position: int) -> tuple[Path, ...]:
        """The files of an image and of its labels; none of a drawn scene."""
        if not isinstance(self.dataset, FileDataset):
            return ()
        item = self.dataset.source.listing.items[self.indices[position]]
        return item.image, item.label

    def stamps(self, position: int) -> list[int]:
        """Size in bytes and time of change in ns of each of `files`; 0 for a file that is missing."""
        return [number for file in self.files(position) for number in _stamp(file)]


def _stamp(file: Path) -> tuple[int, int]:
    try:
        status = file.stat()
    except OSError:
        return 0, 0
    return status.st_size, status.st_mtime_ns


@dataclass(frozen=True, eq=False)
class SetProgress:
    """The records of one set.

    Attributes:
        folder: of their files.
        key: of the evaluation on this set, see `evaluation_key`.
        chosen: the images.
        stamps: of each image when the evaluation began.
    """

    folder: Path
    key: str
    chosen: ChosenImages
    stamps: Sequence[list[int]]

    def load(self, policies: int, sources: int) -> SetCounts:
        """Sum all records.

        Raises:
            InputError: a file is damaged or cannot be read, or an image changed after it was counted.
        """
        counts = SetCounts(len(self.stamps), len(self.chosen.dataset.classes), policies, sources)
        for file in sorted(self.folder.glob(f"{self.key}-*{_SUFFIX}")):
            for image in _records(file):
                if image.stamps != self.stamps[image.position]:
                    raise InputError(
                        f"{file}: counts {self.chosen.identity(image.position)} as it was before that or its "
                        "labels changed; remove the file to count its images again"
                    )
                counts.add(image)
        return counts

    def new_file(self) -> Path:
        """The path of a new file, for one process to append to."""
        return self.folder / f"{self.key}-{uuid.uuid4().hex[:12]}{_SUFFIX}"


def append_record(file: Path, image: ImageCounts, sync: bool) -> None:
    """Append the counts of an image to a file; `sync` also forces the file to the disk.

    Raises:
        InputError: the file cannot be written.
    """
    text = msgspec.json.encode(image)
    try:
        with file.open("ab") as stream:
            stream.write(b"%08x %b\n" % (zlib.crc32(text), text))
            if sync:
                stream.flush()
                os.fsync(stream.fileno())
    except OSError as error:
        raise InputError(
            f"{file}: cannot be written ({error.strerror}); make room there and give the same command again"
        ) from error


def _records(file: Path) -> Iterator[ImageCounts]:
    """The records of a file, without a last one that is cut off; raises InputError as `SetProgress.load`."""
    try:
        with file.open("rb") as stream:
            for number, line in enumerate(stream, 1):
                if not line.endswith(b"\n"):
                    return
                checksum, _, text = line[:-1].partition(b" ")
                if checksum != b"%08x" % zlib.crc32(text):
                    raise ValueError(f"line {number} does not match its checksum")
                yield msgspec.json.decode(text, type=ImageCounts)
    except (OSError, ValueError, msgspec.DecodeError) as error:
        raise InputError(
            f"{file}: cannot be read as the progress of an evaluation ({error}); remove it to count its "
            "images again"
        ) from error


class ProgressFolder:
    """The folder of an evaluation's records.

    Attributes:
        folder: is made when an evaluation begins, and removed when it is empty.
    """

    def __init__(self, folder: Path, note: Callable[[str], None]) -> None:
        """`note` is called with a line for each file there that belongs to another evaluation."""
        self.folder = folder
        self._note = note
        self._keys: set[str] = set()

    @contextmanager
    def begin(
        self, settings: Mapping[str, Any], sets: Sequence[ChosenImages]
    ) -> Iterator[Sequence[SetProgress]]:
        """Make the folder, and give the records of each set; at the end an empty folder is removed.

        Args:
            settings: of the evaluation, see `evaluation_key`.
            sets: what is evaluated.

        Raises:
            InputError: the folder cannot be made or written.
        """
        try:
            make_folder(self.folder)
            progress = []
            for chosen in sets:
                stamps = [chosen.stamps(position) for position in range(len(chosen.indices))]
                progress.append(SetProgress(self.folder, evaluation_key(settings, chosen), chosen, stamps))
            self._keys = {each.key for each in progress}
            for path in sorted(self.folder.glob("[!.]*")):
                if path.is_file() and not self._is_ours(path):
                    self._note(f"{path}: belongs to another evaluation and is not used")
            yield progress
        finally:
            with suppress(OSError):
                self.folder.rmdir()

    def remove(self) -> None:
        """Remove the files of this evaluation, and the folder if nothing else is kept there."""
        with suppress(OSError):
            for path in self.folder.iterdir():
                if path.name.startswith(SCRATCH):
                    shutil.rmtree(path)
                elif self._is_ours(path):
                    path.unlink()
            self.folder.rmdir()

    def _is_ours(self, path: Path) -> bool:
        return path.suffix == _SUFFIX and path.name.partition("-")[0] in self._keys


def evaluation_key(settings: Mapping[str, Any], chosen: ChosenImages) -> str:
    """A key, in hexadecimal, that differs where the counts of two evaluations could.

    It covers the set's names, categories and paths; `ChosenImages.stamps` covers the files' content.

    Args:
        settings: of the evaluation, as JSON can hold them.
        chosen: the images.
    """
    dataset = chosen.dataset
    recipe = {
        "settings": settings,
        "data": [dataset.name, dataset.split, dataset.names, dataset.classes, dataset.max_short_side],
        "scored_as": dataset.scored_as.tolist(),
        "images": [
            [str(resolved(file)) for file in chosen.files(position)] or chosen.identity(position)
            for position in range(len(chosen.indices))
        ],
    }
    return hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()[:32]


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
