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
from .files import FileContent, FileDataset, Listing

# Called with samples read, samples in all.
Progress = Callable[[int, int], None]


@dataclass
class CheckReport:
    """What a data set holds and what is wrong with it.

    Attributes:
        kind: "raw", "converted", "own" or "drawn".
        images: how many there are.
        labels: how many label maps there are.
        pixels: by class, the pixels labelled so, int64.
        images_with: by class, the samples in which there are any, int64.
        ignored: pixels that are not scored.
        unreadable: a message for each sample that cannot be read.
        mismatched: a message for each sample whose image and labels differ in size.
        outside: by label id outside the list, the number of samples that hold it.
        outside_first: by such an id, the first of these samples.
        listing: what lacks its partner.
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
    count, classes = len(dataset), len(dataset.classes)
    pixels, images_with = np.zeros(classes, np.int64), np.zeros(classes, np.int64)
    result = CheckReport(
        dataset.name, dataset.split, "drawn", count, count, dataset.classes, pixels, images_with
    )
    if isinstance(dataset, FileDataset):
        result.kind, result.listing = dataset.source.kind, dataset.source.listing
        result.images += len(result.listing.unlabelled)
        result.labels += len(result.listing.imageless)
    samples = map_threaded(lambda index: _read(dataset, index), range(count), pool_size())
    with closing(samples):
        for index, sample in enumerate(samples):
            if isinstance(sample, str):
                result.unreadable.append(sample)
            else:
                content, counts = sample
                pixels += counts[:-1]
                images_with += counts[:-1] > 0
                result.ignored += int(counts[-1])
                if content.mismatch is not None:
                    result.mismatched.append(content.mismatch)
                for value in content.outside:
                    result.outside[value] += 1
                    result.outside_first.setdefault(value, dataset.identity(index))
            if report is not None:
                report(index + 1, count)
    return result


def _read(dataset: Dataset, index: int) -> tuple[FileContent, np.ndarray] | str:
    """A sample and its pixels by class, ignored ones last; the message where it cannot be read."""
    try:
        if isinstance(dataset, FileDataset):
            content = dataset.read(index)
        else:
            sample = dataset[index]
            content = FileContent(sample.image, sample.labels, (), None)
    except InputError as error:
        return str(error)
    classes = len(dataset.classes)
    labels = np.where(content.labels == IGNORED, classes, content.labels)
    return content, np.bincount(labels.ravel(), minlength=classes + 1)
