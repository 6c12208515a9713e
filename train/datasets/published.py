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
from PIL import Image

from ...errors import InputError
from ...files import exists
from ...runtime.images import load_image
from ...runtime.vocabulary import published
from .dataset import IGNORED
from .files import FileSource, Item, check_not_empty, files_by_key, paired, read_file, text_lines
from .labels import (
    MergedAnnotations,
    counted_from,
    decoding,
    published_table,
    read_ade_colours,
    read_label_image,
    read_label_map,
    reader_package,
    table_of,
)

IMAGE_ENDINGS = (".jpg",)
# As the ending of label files: one file holds those of all images.
MERGED = "merged"
VOC_CLASSES = 20


@dataclass(frozen=True)
class FolderLayout:
    """Folders and files of one split; all paths are relative to the set's root.

    Attributes:
        kind: as downloaded, or as the preparation scripts write it.
        images: folder of the images.
        labels: folder of the labels, or PASCAL-Context's file of all of them.
        table: makes the table of what label values stand for (`labels.table_of`).
        ending: how the names of label files end.
        read_labels: reads a label file.
        read_image: reads an image.
        shared: whether the images' folder holds more than the split, whose samples are then those that
            `listed` names, or else those that have labels.
        listed: a text file of image names.
        recursive: whether files lie in folders inside these.
        by_name: pair files by name, whatever folder they are in.
        package: what must be installed to read the labels.
    """

    kind: Literal["raw", "converted"]
    images: str
    labels: str
    table: Callable[[], np.ndarray]
    ending: str = ".png"
    read_labels: Callable[[Path], np.ndarray] = field(default=read_label_image)
    # Upright by EXIF, as detectron2 reads it.
    read_image: Callable[[Path], np.ndarray] = field(default=load_image)
    shared: bool = False
    listed: str | None = None
    recursive: bool = False
    by_name: bool = False
    package: str | None = None

    @property
    def needed(self) -> tuple[str, ...]:
        """What must be there, each once."""
        return tuple(dict.fromkeys(each for each in (self.images, self.labels, self.listed) if each))

    def missing(self, root: Path) -> list[str]:
        """What is not there."""
        return [each for each in self.needed if not exists(root / each)]

    def open(self, root: Path) -> FileSource:
        """List the files; raises InputError where a folder or list cannot be read or nothing is there."""
        if self.package is not None:
            # Said now rather than at the first sample, which another process may read.
            reader_package(self.package, self.package)
        images = files_by_key(root / self.images, IMAGE_ENDINGS, self.recursive)
        if self.by_name:
            images = {Path(key).name: path for key, path in images.items()}
        path = root / self.labels
        if self.ending == MERGED:
            merged = MergedAnnotations(path, "val")
            labels: Mapping[str, Path] = dict.fromkeys(merged.masks, path)
            read, keys = partial(read_merged, merged), list(merged.sizes)
        else:
            labels = files_by_key(path, (self.ending,), self.recursive)
            read = partial(read_file, self.read_labels)
            keys = list(labels) if self.shared else sorted({*images, *labels})
        if self.listed is not None:
            keys = read_list(root / self.listed)
        listing = paired(images, labels, keys)
        check_not_empty(listing, root / self.images, path)
        return FileSource(self.kind, listing, self.read_image, read, {0: self.table()})


def read_merged(merged: MergedAnnotations, item: Item) -> np.ndarray:
    """The labels of an item whose label file is that of all."""
    return merged.read(item.image.stem)


def read_list(path: Path) -> list[str]:
    """The first word of each line of a text file, such as VOC's lists of image names.

    Raises:
        InputError: the file cannot be read as text or lists nothing, or a name twice.
    """
    fix = "restore it from the download"
    names = [line.split()[0] for line in text_lines(path, fix) if line.strip()]
    if not names:
        raise InputError(f"{path}: lists no images; {fix}")
    name, count = Counter(names).most_common(1)[0]
    if count > 1:
        raise InputError(f"{path}: lists {name} twice; {fix}")
    return names


def read_as_stored(path: Path) -> np.ndarray:
    """The image, RGB uint8 (H, W, 3), whatever its EXIF orientation says.

    Raises:
        InputError: the file cannot be read.
    """
    with decoding(path), Image.open(path) as image:
        return load_image(np.array(image.convert("RGB")))


@dataclass(frozen=True)
class PublishedSet:
    """A published set.

    Attributes:
        about: a few words.
        vocabulary: name of the list of what is segmented.
        layouts: by split: the converted ones, then the raw one; the first that is whole is read.
        background: whether the names after VOC's 20 are scored as one more class.
        max_short_side: as in `Dataset`.
    """

    about: str
    vocabulary: str
    layouts: Mapping[str, tuple[FolderLayout, ...]] = field(repr=False)
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


def _coco(split: str) -> tuple[FolderLayout, ...]:
    base = "coco-stuff"
    images = f"{base}/images/{split}2017"
    converted, raw = f"{base}/annotations_detectron2/{split}2017", f"{base}/annotations/{split}2017"
    return (
        FolderLayout("converted", images, converted, partial(counted_from, 0, 171, [255])),
        FolderLayout("raw", images, raw, partial(published_table, "coco_stuff", [255])),
    )


def _ade150() -> tuple[FolderLayout, ...]:
    base = "ADEChallengeData2016"
    images = f"{base}/images/validation"
    converted, raw = f"{base}/annotations_detectron2/validation", f"{base}/annotations/validation"
    return (
        FolderLayout("converted", images, converted, partial(counted_from, 0, 150, [255])),
        FolderLayout("raw", images, raw, partial(counted_from, 1, 150, [0])),
    )


def _ade847() -> tuple[FolderLayout, ...]:
    base = "ADE20K_2021_17_01"
    images, resized = f"{base}/images/ADE/validation", f"{base}/images_detectron2/validation"
    converted = f"{base}/annotations_detectron2/validation"
    table = partial(counted_from, 0, 847, [65535])
    return (
        # The scripts write resized images too; labels of full size go with the original ones.
        FolderLayout("converted", resized, converted, table, ".tif"),
        FolderLayout("converted", images, converted, table, ".tif", recursive=True, by_name=True),
        FolderLayout(
            "raw",
            images,
            images,
            partial(published_table, "ade847", others=IGNORED),
            "_seg.png",
            read_ade_colours,
            # The scripts leave EXIF orientations out, and the labels were drawn without.
            read_as_stored,
            recursive=True,
        ),
    )


def _voc(background: bool) -> tuple[FolderLayout, ...]:
    base = "VOCdevkit/VOC2012"
    images, raw = f"{base}/JPEGImages", f"{base}/SegmentationClassAug"
    converted = f"{base}/annotations_detectron2{'_bg' if background else ''}/val"
    listed = f"{base}/ImageSets/Segmentation/val.txt"
    table = partial(counted_from, 0, VOC_CLASSES + background, [255])
    ids = {index + 1: index for index in range(VOC_CLASSES)}
    if background:
        raw_table = partial(table_of, ids | {0: VOC_CLASSES}, [255])
    else:
        raw_table = partial(table_of, ids, [0, 255])
    return (
        FolderLayout("converted", images, converted, table, shared=True),
        FolderLayout("raw", images, raw, raw_table, shared=True, listed=listed),
    )


def _context59() -> tuple[FolderLayout, ...]:
    base = "VOCdevkit/VOC2010"
    images, converted = f"{base}/JPEGImages", f"{base}/annotations_detectron2/pc59_val"
    raw, table = f"{base}/trainval_merged.json", partial(published_table, "pc59", others=IGNORED)
    return (
        FolderLayout("converted", images, converted, partial(counted_from, 0, 59, [255]), shared=True),
        FolderLayout("raw", images, raw, table, MERGED, shared=True),
    )


def _context459() -> tuple[FolderLayout, ...]:
    base = "VOCdevkit/VOC2010"
    images, converted = f"{base}/JPEGImages", f"{base}/annotations_detectron2/pc459_val"
    return (
        FolderLayout(
            "converted", images, converted, partial(counted_from, 0, 459, [459, 65535]), ".tif", shared=True
        ),
        FolderLayout(
            "raw",
            images,
            f"{base}/trainval",
            # 460 less one is the published ignored index; 0 less one, in 16 bits without a sign, is 65535.
            partial(counted_from, 1, 459, [0, 460]),
            ".mat",
            read_label_map,
            shared=True,
            listed=f"{base}/pascalcontext_val.txt",
            package="scipy",
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
