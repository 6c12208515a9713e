"""A data set made of image and label files: which belongs to which, and how they are read."""

import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import InputError
from .dataset import Dataset, Sample, decoding, reader_package
from .labels import to_categories


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


_READER, _PACKAGE = "pycocotools.mask", "pycocotools"


class MergedAnnotations:
    """The annotations of a phase, "train" or "val", read once.

    `labels` leads from the stem of each annotated image to the file itself; `stems` are all images of
    the phase, in the file's order.
    """

    def __init__(self, path: Path, phase: str) -> None:
        """Read the file.

        Raises:
            InputError: pycocotools is missing, or the file cannot be read, is not of this format, or has no
                image of the phase.
        """
        # Said before the long reading rather than at the first sample.
        reader_package(_READER, _PACKAGE)
        self.path = path
        content = _read_json(path)
        try:
            images = [each for each in content["images"] if each["phase"] == phase]
            stems = {each["image_id"]: Path(each["file_name"]).stem for each in images}
            self.sizes = {
                Path(each["file_name"]).stem: (int(each["height"]), int(each["width"])) for each in images
            }
            self.masks: dict[str, list[tuple[int, Any]]] = {}
            for each in content["annos_segmentation"]:
                if each["image_id"] in stems:
                    mask = (int(each["category_id"]), each["segmentation"])
                    self.masks.setdefault(stems[each["image_id"]], []).append(mask)
        except (LookupError, TypeError, ValueError) as error:
            raise InputError(
                f"{path}: is not PASCAL-Context's trainval_merged.json ({type(error).__name__}: {error}); "
                "download it again"
            ) from error
        if not self.sizes:
            raise InputError(f"{path}: holds no image of the phase {phase!r}; download it again")
        self.stems = list(self.sizes)
        self.labels: Mapping[str, Path] = dict.fromkeys(self.masks, path)

    def read(self, item: Item) -> np.ndarray:
        """The category ids of an image, int32 (H, W): of the last mask that covers a pixel, 0 without one.

        Raises:
            InputError: pycocotools is missing, or a mask is broken.
        """
        stem = item.image.stem
        size = self.sizes[stem]
        labels = np.zeros(size, np.int32)
        for category, segmentation in self.masks[stem]:
            labels[decoded(segmentation, size, f"{self.path}: category {category} of {stem}")] = category
        return labels


def decoded(segmentation: Any, size: tuple[int, int], name: str) -> np.ndarray:
    """A mask in COCO's format, bool (H, W): run lengths, compressed or not, or polygons.

    Raises:
        InputError: pycocotools is missing, or the mask is broken or of another size; the message begins
            with `name`.
    """
    coco = reader_package(_READER, _PACKAGE)
    try:
        if isinstance(segmentation, list):
            mask = coco.decode(coco.merge(coco.frPyObjects(segmentation, *size)))
        elif isinstance(segmentation["counts"], list):
            # pycocotools leaves pixels that no run covers as memory was.
            if sum(segmentation["counts"]) != size[0] * size[1]:
                raise ValueError(f"its runs are {sum(segmentation['counts'])} pixels long")
            mask = coco.decode(coco.frPyObjects(segmentation, *segmentation["size"]))
        else:
            mask = coco.decode(segmentation)
    except Exception as error:
        # pycocotools raises bare Exceptions as well.
        raise InputError(
            f"{name}: the mask is broken ({type(error).__name__}: {error}); download the file again"
        ) from error
    if mask.shape != size:
        raise InputError(f"{name}: the mask is {mask.shape}, expected {size}; download the file again")
    return mask.astype(bool)


def _read_json(path: Path) -> Any:
    with decoding(path):
        return json.loads(path.read_bytes())


@dataclass(frozen=True)
class Source:
    """Where the samples of a set come from and how they are read.

    `kind` is "raw", "converted" or "own". `read_image` gives uint8 (H, W, 3), `read_labels` the values
    of the label file, integers (H, W), and `tables` what these stand for by the bytes that each takes;
    the entry of 0 is for any other number of bytes.
    """

    kind: str
    listing: Listing
    read_image: Callable[[Path], np.ndarray]
    read_labels: Callable[[Item], np.ndarray]
    tables: Mapping[int, np.ndarray]


@dataclass(frozen=True, eq=False)
class Reading:
    """A sample as its files are, right or wrong.

    `image` and `labels` are as in `Sample` but may differ in size; `outside` are the values in the
    label file that stand for nothing, which are ignored in `labels`.
    """

    image: np.ndarray
    labels: np.ndarray
    outside: tuple[int, ...]


class FileDataset(Dataset):
    """Pairs of files; `source` says which, and holds what has no partner."""

    def __init__(
        self,
        name: str,
        split: str,
        names: Sequence[str],
        source: Source,
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
        reading = self.read(index)
        for fault in (self.size_fault(index, reading), self.label_fault(index, reading)):
            if fault is not None:
                raise InputError(fault)
        return Sample(reading.image, reading.labels)

    def identity(self, index: int) -> str:
        return str(self._item(index).image)

    def read(self, index: int) -> Reading:
        """The two files of a sample; raises InputError where one cannot be read."""
        item = self._item(index)
        image = self.source.read_image(item.image)
        raw = self.source.read_labels(item)
        tables = self.source.tables
        labels, outside = to_categories(raw, tables.get(raw.dtype.itemsize, tables[0]))
        return Reading(image, labels, outside)

    def size_fault(self, index: int, reading: Reading) -> str | None:
        """A line that says how image and labels differ in size; None if they do not."""
        item = self._item(index)
        (height, width), (rows, columns) = reading.image.shape[:2], reading.labels.shape
        if (height, width) == (rows, columns):
            return None
        turned = ""
        if (height, width) == (columns, rows):
            turned = ", as if the image's EXIF orientation had been applied to one of them only"
        return (
            f"{item.label}: labels are {columns} x {rows}, but {item.image} is {width} x {height}{turned}; "
            "expected the same size; replace one of them"
        )

    def label_fault(self, index: int, reading: Reading) -> str | None:
        """A line that names label values that stand for nothing; None if there are none."""
        if not reading.outside:
            return None
        item = self._item(index)
        found = ", ".join(str(value) for value in reading.outside[:5])
        more = f" and {len(reading.outside) - 5} more" if len(reading.outside) > 5 else ""
        return (
            f"{item.label}: label ids {found}{more} for {item.image.name} are outside the list of "
            f"{len(self.classes)} categories; `sed-trt data check` counts them over the whole set"
        )

    def _item(self, index: int) -> Item:
        if not 0 <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)}")
        return self.source.listing.items[index]
