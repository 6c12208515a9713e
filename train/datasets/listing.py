"""Which image belongs to which label file, and what has no partner."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ...errors import InputError


@dataclass(frozen=True)
class Item:
    """An image and the file that holds its labels."""

    image: Path
    label: Path


@dataclass(frozen=True)
class Listing:
    """The samples of a set, in order, and what is there only by half.

    `unlabelled` are images without labels, `imageless` label files without images, with the image's name
    where the file is that of many, and `absent` names of the set's list that have neither.
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
            f"{len(found)} {one if len(found) == 1 else many}, the first is {found[0]}"
            for one, many, found in kinds
            if found
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
    found: dict[str, Path] = {}
    for inner, names in _walk(folder, recursive):
        here = folder / inner
        prefix = "" if inner == Path() else f"{inner.as_posix()}/"
        for name in names:
            # macOS leaves files such as ._photo.jpg in archives.
            if name.startswith(".") or not (lower := name.lower()).endswith(endings):
                continue
            ending = next(each for each in endings if lower.endswith(each))
            key = prefix + name[: -len(ending)]
            path = here / name
            if key in found:
                raise InputError(
                    f"{path}: shares its name with {found[key].name}, so labels cannot be told apart; "
                    "rename one of them"
                )
            found[key] = path
    return dict(sorted(found.items()))


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
            own = label.name.startswith(Path(key).name)
            imageless.append(str(label) if own else f"{label} (labels of {key})")
        else:
            absent.append(key)
    return Listing(tuple(items), tuple(unlabelled), tuple(imageless), tuple(absent))


def refuse_nothing(listing: Listing, images: Path, labels: Path) -> None:
    """Raise an InputError that names where was looked, unless the listing holds half a sample at least."""
    if listing == Listing():
        where = " and ".join(dict.fromkeys((str(images), str(labels))))
        raise InputError(f"{where}: neither images nor labels of the split are there; unpack them first")


def _walk(folder: Path, recursive: bool) -> list[tuple[Path, list[str]]]:
    """Folders inside `folder`, relative to it, with the names of their files."""
    found: list[tuple[Path, list[str]]] = []

    def refuse(error: OSError) -> None:
        raise InputError(
            f"{error.filename}: cannot be listed ({error.strerror}); give a folder you can read"
        ) from error

    for inner, folders, names in os.walk(folder, onerror=refuse, followlinks=True):
        found.append((Path(inner).relative_to(folder), names))
        if not recursive:
            folders.clear()
    return found
