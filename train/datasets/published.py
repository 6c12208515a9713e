"""The seven sets of the published evaluation: where they lie, and what their labels mean.

Raw layouts are those of the downloads, converted ones those that the preparation scripts of SED, CAT-Seg and
OVSeg write for detectron2: 8-bit PNG with 255 for what is not scored (ade150, coco-stuff, voc, pc59), 16-bit
TIFF with 65535 (ade847) or 459 (pc459) for it.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np

from ...errors import InputError
from ...files import exists
from ...runtime.vocabulary import published
from .dataset import IGNORED, read_as_stored, read_upright, reader_package
from .files import Item, MergedAnnotations, Source, files_by_key, paired, refuse_nothing
from .labels import counted_from, published_ids, read_ade_colours, read_label_image, read_label_map, table_of

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


VOC_CLASSES = 20

_PNG = label_folder(read_label_image, ".png")
_TIFF = label_folder(read_label_image, ".tif")
_COCO = "coco-stuff"
_ADE = "ADEChallengeData2016"
_FULL = "ADE20K_2021_17_01"
_VOC = "VOCdevkit/VOC2012"
_CONTEXT = "VOCdevkit/VOC2010"


@dataclass(frozen=True)
class PublishedSet:
    """A published set.

    `layouts` are by split; the first of which everything is there is read. `vocabulary` names the list of
    what is segmented; `background` is whether the names after VOC's 20 are scored as one more class.
    """

    about: str
    vocabulary: str
    layouts: Mapping[str, tuple[Layout, ...]] = field(repr=False)
    background: bool = False
    max_short_side: int | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """What is segmented."""
        return tuple(published(self.vocabulary))

    @property
    def classes(self) -> tuple[str, ...]:
        """What is scored."""
        return (*self.names[:VOC_CLASSES], "background") if self.background else self.names

    @property
    def scored_as(self) -> np.ndarray:
        """The class of each name, int32."""
        return np.minimum(np.arange(len(self.names), dtype=np.int32), len(self.classes) - 1)


def _coco(split: str) -> tuple[Layout, ...]:
    images = f"{_COCO}/images/{split}2017"
    converted = f"{_COCO}/annotations_detectron2/{split}2017"
    raw = f"{_COCO}/annotations/{split}2017"
    return (
        Layout("converted", images, converted, _PNG, lambda: counted_from(0, 171, [255])),
        Layout("raw", images, raw, _PNG, lambda: table_of(published_ids("coco_stuff"), [255])),
    )


def _ade150() -> tuple[Layout, ...]:
    images = f"{_ADE}/images/validation"
    converted = f"{_ADE}/annotations_detectron2/validation"
    raw = f"{_ADE}/annotations/validation"
    return (
        Layout("converted", images, converted, _PNG, lambda: counted_from(0, 150, [255])),
        Layout("raw", images, raw, _PNG, lambda: counted_from(1, 150, [0])),
    )


def _ade847() -> tuple[Layout, ...]:
    images = f"{_FULL}/images/ADE/validation"
    converted = f"{_FULL}/annotations_detectron2/validation"

    def table() -> np.ndarray:
        return counted_from(0, 847, [65535])

    return (
        # The scripts write resized pictures too; labels of full size go with the original ones.
        Layout("converted", f"{_FULL}/images_detectron2/validation", converted, _TIFF, table),
        Layout("converted", images, converted, _TIFF, table, recursive=True, by_name=True),
        Layout(
            "raw",
            images,
            images,
            label_folder(read_ade_colours, "_seg.png", recursive=True),
            lambda: table_of(published_ids("ade847"), others=IGNORED),
            recursive=True,
            # The scripts leave EXIF orientations out, and the labels were drawn without.
            read_image=read_as_stored,
        ),
    )


def _voc(background: bool) -> tuple[Layout, ...]:
    images = f"{_VOC}/JPEGImages"
    converted = f"{_VOC}/annotations_detectron2{'_bg' if background else ''}/val"
    classes = VOC_CLASSES + background

    def raw_table() -> np.ndarray:
        ids = {index + 1: index for index in range(VOC_CLASSES)}
        return table_of(ids | {0: VOC_CLASSES}, [255]) if background else table_of(ids, [0, 255])

    return (
        Layout("converted", images, converted, _PNG, lambda: counted_from(0, classes, [255]), shared=True),
        Layout(
            "raw",
            images,
            f"{_VOC}/SegmentationClassAug",
            _PNG,
            raw_table,
            shared=True,
            listed=f"{_VOC}/ImageSets/Segmentation/val.txt",
        ),
    )


def _context59() -> tuple[Layout, ...]:
    images, converted = f"{_CONTEXT}/JPEGImages", f"{_CONTEXT}/annotations_detectron2/pc59_val"
    return (
        Layout("converted", images, converted, _PNG, lambda: counted_from(0, 59, [255]), shared=True),
        Layout(
            "raw",
            images,
            f"{_CONTEXT}/trainval_merged.json",
            merged_labels("val"),
            lambda: table_of(published_ids("pc59"), others=IGNORED),
            shared=True,
        ),
    )


def _context459() -> tuple[Layout, ...]:
    images, converted = f"{_CONTEXT}/JPEGImages", f"{_CONTEXT}/annotations_detectron2/pc459_val"
    return (
        Layout(
            "converted",
            images,
            converted,
            _TIFF,
            lambda: counted_from(0, 459, [459, 65535]),
            shared=True,
        ),
        Layout(
            "raw",
            images,
            f"{_CONTEXT}/trainval",
            label_folder(read_label_map, ".mat", package="scipy"),
            # 460 less one is the published ignored index; 0 less one, in 16 bits without a sign, is 65535.
            lambda: counted_from(1, 459, [0, 460]),
            shared=True,
            listed=f"{_CONTEXT}/pascalcontext_val.txt",
        ),
    )


PUBLISHED: Mapping[str, PublishedSet] = {
    "coco-stuff": PublishedSet(
        "COCO-Stuff 164k, 171 categories", "coco", {"train": _coco("train"), "val": _coco("val")}
    ),
    "ade150": PublishedSet("ADE20K, 150 categories", "ade150", {"val": _ade150()}),
    "ade847": PublishedSet("ADE20K full, 847 categories", "ade847", {"val": _ade847()}, max_short_side=512),
    "voc20": PublishedSet("PASCAL VOC 2012, 20 categories", "voc20", {"val": _voc(False)}),
    "voc20b": PublishedSet(
        "PASCAL VOC 2012, 20 categories and background", "voc20b", {"val": _voc(True)}, background=True
    ),
    "pc59": PublishedSet("PASCAL-Context, 59 categories", "pc59", {"val": _context59()}),
    "pc459": PublishedSet("PASCAL-Context, 459 categories", "pc459", {"val": _context459()}),
}
