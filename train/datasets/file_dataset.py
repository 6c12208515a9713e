"""A data set made of image and label files."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...errors import InputError
from .dataset import Dataset, Sample
from .label_ids import to_categories
from .listing import Item, Listing


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
