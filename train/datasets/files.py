"""A data set made of image and label files: which belongs to which, and how they are read."""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...errors import InputError
from .dataset import Dataset, Sample
from .labels import to_categories


@dataclass(frozen=True)
class Item:
    """An image and the file that holds its labels."""

    image: Path
    label: Path


@dataclass(frozen=True)
class Listing:
    """The samples of a set, in order, and what lacks its partner.

    Attributes:
        items: image and labels of each sample.
        unlabelled: images without labels.
        imageless: label files without images, with the image's name where the file is that of many.
        absent: names of the set's list that have neither.
    """

    items: tuple[Item, ...] = ()
    unlabelled: tuple[Path, ...] = ()
    imageless: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()

    def faults(self) -> list[str]:
        """One line for each kind of missing partner."""
        kinds = (
            ("image has no labels", "images have no labels", self.unlabelled),
            ("label file has no image", "label files have no image", self.imageless),
            (
                "listed name has neither image nor labels",
                "listed names have neither image nor labels",
                self.absent,
            ),
        )
        return [
            f"{len(files)} {one if len(files) == 1 else many}, the first is {files[0]}"
            for one, many, files in kinds
            if files
        ]


def files_by_key(folder: Path, endings: Iterable[str], recursive: bool = False) -> dict[str, Path]:
    """Files of a folder by what their path inside it is called without the ending, sorted.

    Args:
        folder: where to look.
        endings: how names end, in lower case, such as ".jpg" or "_seg.png"; capitals count as equal.
        recursive: look in the folders inside as well.

    Raises:
        InputError: the folder cannot be listed, or two files share a key.
    """
    endings = tuple(endings)
    files: dict[str, Path] = {}
    for inner, names in _walk(folder, recursive):
        for name in names:
            lower = name.lower()
            # macOS leaves files such as ._photo.jpg in archives.
            if name.startswith(".") or not lower.endswith(endings):
                continue
            ending = next(each for each in endings if lower.endswith(each))
            path = folder / inner / name
            key = (inner / name[: -len(ending)]).as_posix()
            if key in files:
                raise InputError(
                    f"{path}: shares its name with {files[key].name}, so labels cannot be told apart; "
                    "rename one of them"
                )
            files[key] = path
    return dict(sorted(files.items()))


def _walk(folder: Path, recursive: bool) -> list[tuple[Path, list[str]]]:
    """Folders inside `folder`, relative to it, with the names of their files."""

    def refuse(error: OSError) -> None:
        raise InputError(
            f"{error.filename}: cannot be listed ({error.strerror}); give a folder you can read"
        ) from error

    walked: list[tuple[Path, list[str]]] = []
    for inner, folders, names in os.walk(folder, onerror=refuse, followlinks=True):
        walked.append((Path(inner).relative_to(folder), names))
        if not recursive:
            folders.clear()
    return walked


def text_lines(path: Path, fix: str) -> list[str]:
    """The lines of a text file, blank ones at the end left out.

    Raises:
        InputError: it cannot be read as UTF-8; the message ends with `fix`.
    """
    try:
        # Editors on Windows put a byte-order mark before the first line.
        return path.read_text(encoding="utf-8-sig").rstrip().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as text ({error}); {fix}") from error


def paired(images: Mapping[str, Path], labels: Mapping[str, Path], keys: Iterable[str]) -> Listing:
    """The images and labels of the keys, in the keys' order."""
    items: list[Item] = []
    unlabelled: list[Path] = []
    imageless: list[str] = []
    absent: list[str] = []
    for key in keys:
        image, label = images.get(key), labels.get(key)
        if image is not None and label is not None:
            items.append(Item(image, label))
        elif image is not None:
            unlabelled.append(image)
        elif label is not None:
            of_one_image = label.name.startswith(Path(key).name)
            imageless.append(str(label) if of_one_image else f"{label} (labels of {key})")
        else:
            absent.append(key)
    return Listing(tuple(items), tuple(unlabelled), tuple(imageless), tuple(absent))


def check_not_empty(listing: Listing, images: Path, labels: Path) -> None:
    """Raise an InputError that names both places, unless the listing holds half a sample at least."""
    if listing == Listing():
        where = " and ".join(dict.fromkeys((str(images), str(labels))))
        raise InputError(f"{where}: neither images nor labels of the split are there; unpack them first")


def read_file(read: Callable[[Path], np.ndarray], item: Item) -> np.ndarray:
    """The labels of an item that has a label file of its own, by the file's reader."""
    return read(item.label)


@dataclass(frozen=True)
class FileSource:
    """Where the samples of a set come from and how they are read.

    Attributes:
        kind: "raw", "converted" or "own".
        listing: the files.
        read_image: gives RGB uint8 (H, W, 3).
        read_labels: gives the values of a label file, integers (H, W).
        tables: what these values stand for (`labels.table_of`), by the bytes that each takes; the entry of 0
            is for any other number of bytes.
    """

    kind: str
    listing: Listing
    read_image: Callable[[Path], np.ndarray]
    read_labels: Callable[[Item], np.ndarray]
    tables: Mapping[int, np.ndarray]


@dataclass(frozen=True, eq=False)
class FileContent:
    """A sample as its files are, right or wrong.

    Attributes:
        image: as in `Sample`.
        labels: as in `Sample`, but perhaps of another size than the image.
        outside: the values in the label file that stand for nothing, which are ignored in `labels`.
        mismatch: a line that says how image and labels differ in size; None if they do not.
    """

    image: np.ndarray
    labels: np.ndarray
    outside: tuple[int, ...]
    mismatch: str | None


class FileDataset(Dataset):
    """Pairs of files; `source` says which, and what has no partner."""

    def __init__(
        self,
        name: str,
        split: str,
        names: Sequence[str],
        source: FileSource,
        classes: Sequence[str] | None = None,
        scored_as: np.ndarray | None = None,
        max_short_side: int | None = None,
    ) -> None:
        self.name, self.split, self.source = name, split, source
        self.names = tuple(names)
        self.classes = self.names if classes is None else tuple(classes)
        self.scored_as = np.arange(len(self.names), dtype=np.int32) if scored_as is None else scored_as
        self.max_short_side = max_short_side

    def __len__(self) -> int:
        return len(self.source.listing.items)

    def __getitem__(self, index: int) -> Sample:
        content = self.read(index)
        if content.mismatch is not None:
            raise InputError(content.mismatch)
        if content.outside:
            item = self._item(index)
            values = ", ".join(str(value) for value in content.outside[:5])
            more = f" and {len(content.outside) - 5} more" if len(content.outside) > 5 else ""
            raise InputError(
                f"{item.label}: label ids {values}{more} for {item.image.name} are outside the list of "
                f"{len(self.classes)} categories; `sed-trt data check` counts them over the whole set"
            )
        return Sample(content.image, content.labels)

    def identity(self, index: int) -> str:
        return str(self._item(index).image)

    def read(self, index: int) -> FileContent:
        """The two files of a sample; raises InputError where one cannot be read."""
        item = self._item(index)
        image = self.source.read_image(item.image)
        values = self.source.read_labels(item)
        tables = self.source.tables
        labels, outside = to_categories(values, tables.get(values.dtype.itemsize, tables[0]))
        return FileContent(image, labels, outside, _mismatch(item, image.shape[:2], labels.shape))

    def _item(self, index: int) -> Item:
        if not 0 <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)}")
        return self.source.listing.items[index]


def _mismatch(item: Item, image: tuple[int, ...], labels: tuple[int, ...]) -> str | None:
    """How an image and its labels, of these heights and widths, differ in size."""
    if image == labels:
        return None
    turned = ""
    if image == labels[::-1]:
        turned = ", as if the image's EXIF orientation had been applied to one of them only"
    return (
        f"{item.label}: labels are {labels[1]} x {labels[0]}, but {item.image} is {image[1]} x {image[0]}"
        f"{turned}; expected the same size; replace one of them"
    )
