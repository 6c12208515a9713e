"""Whether a data set is whole: every file read, every label counted."""

from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ...errors import InputError
from ...runtime.stream import map_threaded, pool_size
from .dataset import IGNORED, Dataset
from .files import FileDataset, Listing

# Samples read, samples in all.
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class _Counted:
    """One sample: pixels by class, ignored ones last, and what is wrong with it, if anything."""

    pixels: np.ndarray | None = None
    outside: tuple[int, ...] = ()
    mismatch: str | None = None
    unreadable: str | None = None


@dataclass
class CheckReport:
    """What a data set holds and what is wrong with it.

    `pixels` and `images_with` are, by class, the pixels labelled so and the samples in which there are
    any; `ignored` the pixels that are not scored. `unreadable` and `mismatched` are messages, each
    about one sample; `outside` is, by label id outside the list, the number of samples that hold it, and
    `outside_first` the first such sample.
    """

    name: str
    split: str
    kind: str
    images: int
    labels: int
    classes: tuple[str, ...]
    pixels: np.ndarray
    images_with: np.ndarray
    ignored: int = 0
    unreadable: list[str] = field(default_factory=list)
    mismatched: list[str] = field(default_factory=list)
    outside: Counter[int] = field(default_factory=Counter)
    outside_first: dict[int, str] = field(default_factory=dict)
    listing: Listing = field(default_factory=Listing)

    def faults(self) -> list[str]:
        """One line for each kind of thing that is wrong; none if the set is whole."""
        lines = self.listing.faults()
        for what, messages in (
            ("cannot be read", self.unreadable),
            ("have labels of another size", self.mismatched),
        ):
            if messages:
                lines.append(f"{len(messages)} of the samples {what}, the first: {messages[0]}")
        for value, count in sorted(self.outside.items()):
            lines.append(
                f"label id {value} is outside the list of {len(self.classes)} categories, in {count} label "
                f"file{'' if count == 1 else 's'}, the first: {self.outside_first[value]}"
            )
        return lines

    def as_json(self) -> dict[str, Any]:
        """All of it, ready for JSON."""
        return {
            "name": self.name,
            "split": self.split,
            "layout": self.kind,
            "images": self.images,
            "labels": self.labels,
            "ignored_pixels": self.ignored,
            "categories": [
                {"index": index, "name": name, "pixels": int(pixels), "images": int(images)}
                for index, (name, pixels, images) in enumerate(
                    zip(self.classes, self.pixels, self.images_with, strict=True)
                )
            ],
            "first_broken": self.unreadable[0] if self.unreadable else None,
            "unreadable": self.unreadable,
            "size_mismatches": self.mismatched,
            "outside": [
                {"id": value, "files": count, "first": self.outside_first[value]}
                for value, count in sorted(self.outside.items())
            ],
            "images_without_labels": [str(path) for path in self.listing.unlabelled],
            "labels_without_images": list(self.listing.imageless),
            "listed_but_absent": list(self.listing.absent),
            "whole": not self.faults(),
        }


def check_dataset(dataset: Dataset, report: Progress | None = None) -> CheckReport:
    """Read every sample and count; what is wrong goes into the report instead of being raised.

    Args:
        dataset: from `find_dataset`, so that samples may lack a partner.
        report: called after each sample; None means no reports.
    """
    count = len(dataset.classes)
    result = CheckReport(
        dataset.name,
        dataset.split,
        "drawn",
        len(dataset),
        len(dataset),
        dataset.classes,
        np.zeros(count, np.int64),
        np.zeros(count, np.int64),
    )
    if isinstance(dataset, FileDataset):
        result.kind, result.listing = dataset.source.kind, dataset.source.listing
        result.images += len(result.listing.unlabelled)
        result.labels += len(result.listing.imageless)
    counted = map_threaded(lambda index: _count(dataset, index), range(len(dataset)), pool_size())
    with closing(counted):
        for index, sample in enumerate(counted):
            _add(result, sample, dataset.identity(index))
            if report is not None:
                report(index + 1, len(dataset))
    return result


def _count(dataset: Dataset, index: int) -> _Counted:
    outside: tuple[int, ...] = ()
    mismatch = None
    try:
        if isinstance(dataset, FileDataset):
            reading = dataset.read(index)
            labels, outside = reading.labels, reading.outside
            mismatch = dataset.size_fault(index, reading)
        else:
            labels = dataset[index].labels
    except InputError as error:
        return _Counted(unreadable=str(error))
    classes = len(dataset.classes)
    pixels = np.bincount(np.where(labels == IGNORED, classes, labels).ravel(), minlength=classes + 1)
    return _Counted(pixels, outside, mismatch)


def _add(result: CheckReport, sample: _Counted, name: str) -> None:
    if sample.unreadable is not None:
        result.unreadable.append(sample.unreadable)
    if sample.mismatch is not None:
        result.mismatched.append(sample.mismatch)
    for value in sample.outside:
        result.outside[value] += 1
        result.outside_first.setdefault(value, name)
    if sample.pixels is not None:
        result.pixels += sample.pixels[:-1]
        result.images_with += sample.pixels[:-1] > 0
        result.ignored += int(sample.pixels[-1])
