"""How a published set may lie on disk, and how it is read from there."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np

from ...errors import InputError
from ...paths import exists
from .file_dataset import Source
from .images import read_upright
from .listing import Item, files_by_key, paired, refuse_nothing
from .merged_annotations import MergedAnnotations
from .readers import reader_package

IMAGE_ENDINGS = (".jpg",)


@dataclass(frozen=True)
class Labels:
    """Where labels are, by the key of their image, and how they are read.

    `keys` are the images that a file which holds all labels says there are; None for a folder of labels.
    """

    files: Mapping[str, Path]
    read: Callable[[Item], np.ndarray]
    keys: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Layout:
    """Folders and files of one split, relative to the set's root.

    `shared` is whether the images' folder holds more than the split, whose samples are then those that the
    text file `listed` names, or else those that have labels. `by_name` pairs files by name, whatever
    folder they are in.
    """

    kind: Literal["raw", "converted"]
    images: str
    labels: str
    open_labels: Callable[[Path], Labels]
    table: Callable[[], np.ndarray]
    shared: bool = False
    listed: str | None = None
    recursive: bool = False
    by_name: bool = False
    read_image: Callable[[Path], np.ndarray] = field(default=read_upright)

    @property
    def needed(self) -> tuple[str, ...]:
        """What must be there, relative to the root, each once."""
        return tuple(dict.fromkeys(each for each in (self.images, self.labels, self.listed) if each))

    def missing(self, root: Path) -> list[str]:
        """What is not there."""
        return [each for each in self.needed if not exists(root / each)]

    def open(self, root: Path) -> Source:
        """List the files; raises InputError where a folder or list cannot be read or nothing is there."""
        labels = self.open_labels(root / self.labels)
        images = files_by_key(root / self.images, IMAGE_ENDINGS, self.recursive)
        if self.by_name:
            images = {Path(key).name: path for key, path in images.items()}
        listing = paired(images, labels.files, self._keys(root, images, labels))
        refuse_nothing(listing, root / self.images, root / self.labels)
        return Source(self.kind, listing, self.read_image, labels.read, {0: self.table()})

    def _keys(self, root: Path, images: Mapping[str, Path], labels: Labels) -> list[str]:
        if self.listed is not None:
            return read_list(root / self.listed)
        if not self.shared:
            return sorted({*images, *labels.files})
        return list(labels.files if labels.keys is None else labels.keys)


def label_folder(
    read: Callable[[Path], np.ndarray], ending: str, recursive: bool = False, package: str | None = None
) -> Callable[[Path], Labels]:
    """Opens a folder with a label file for each image, whose names end in `ending`; needs the package."""

    def open_labels(folder: Path) -> Labels:
        if package is not None:
            # Said now rather than at the first sample, which another process may read.
            reader_package(package, package)
        return Labels(files_by_key(folder, (ending,), recursive), partial(read_file, read))

    return open_labels


def read_file(read: Callable[[Path], np.ndarray], item: Item) -> np.ndarray:
    """The labels of an item that has a label file of its own."""
    return read(item.label)


def merged_labels(phase: str) -> Callable[[Path], Labels]:
    """Opens PASCAL-Context's `trainval_merged.json`."""

    def open_labels(file: Path) -> Labels:
        merged = MergedAnnotations(file, phase)
        return Labels(merged.labels, merged.read, tuple(merged.stems))

    return open_labels


def read_list(path: Path) -> list[str]:
    """The first word of each line of a text file, such as VOC's lists of image names.

    Raises:
        InputError: the file cannot be read as text or lists nothing, or a name twice.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"{path}: cannot be read ({error}); restore the list of images from the download"
        ) from error
    names = [line.split()[0] for line in lines if line.strip()]
    if not names:
        raise InputError(f"{path}: lists no images; restore it from the download")
    if len(set(names)) < len(names):
        twice = Counter(names).most_common(1)[0][0]
        raise InputError(f"{path}: lists {twice} twice; restore it from the download")
    return names
