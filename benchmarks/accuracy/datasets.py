"""The published evaluation on data sets: mIoU and what belongs to it, with and without early rejection."""

from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import InputError
from ...train.datasets import NAMES, Dataset, MissingDataError, open_dataset
from ...train.datasets.files import FileDataset
from .count_pictures import Report, count_sets
from .counts import Totals
from .parity import Parity
from .picture_counter import Setup
from .predictors import Source, description
from .protocol import DATA, SHORT_SIDE, published_miou

ALL = "all"
# Those with a published figure come first, in the order of its table.
SETS = (*DATA, *(name for name in NAMES if name not in (*DATA, "scenes")))


@dataclass(frozen=True)
class CategoryScore:
    """One class: its IoU and accuracy in percent, None where it does not occur, and its pixels."""

    name: str
    iou: float | None
    accuracy: float | None
    pixels: int


@dataclass(frozen=True)
class DatasetScores:
    """What one predictor reached on one set. Percentages are those of detectron2's SemSegEvaluator.

    Attributes:
        data: name of the set.
        split: of the set.
        pictures: how many were labelled.
        of: how many the set has.
        categories: size of the vocabulary it chose from.
        rejection: the policy, as on the command line.
        miou: mean IoU of the classes that occur.
        fwiou: the same weighted by pixels.
        pixel_accuracy: share of the pixels that are right.
        class_accuracy: mean over the classes that occur of the share of their pixels that are right.
        kept: mean number of categories alive after each rejection point.
        as_published: whether this is a whole published validation split with the published first resize.
        published: mIoU of the paper for this preset and policy; None where it has none or these are not
            `as_published`.
        per_category: every class.
    """

    data: str
    split: str
    pictures: int
    of: int
    categories: int
    rejection: str
    miou: float
    fwiou: float
    pixel_accuracy: float
    class_accuracy: float
    kept: tuple[float, ...]
    as_published: bool
    published: float | None
    per_category: tuple[CategoryScore, ...]


def open_sets(
    data: Sequence[str], split: str | None, root: Path | None
) -> tuple[list[Dataset], dict[str, str]]:
    """The sets that are asked for, and why those of "all" are left out that are not there, by name.

    Args:
        data: names or folders; "all" stands for `SETS`.
        split: None means each set's own.
        root: see `open_dataset`.

    Raises:
        InputError: a set that is named, or there, cannot be opened, one is named twice, or "all" finds none.
    """
    named = [name for name in data if name != ALL]
    twice = next((name for name in data if data.count(name) > 1), None)
    if twice is not None:
        raise InputError(f"--data: {twice} is given twice; name each set once")
    opened = {name: open_dataset(name, split, root) for name in named}
    missing: dict[str, str] = {}
    if ALL in data:
        for name in SETS:
            if name in opened:
                continue
            try:
                opened[name] = open_dataset(name, split, root)
            except MissingDataError as error:
                missing[name] = str(error)
        if not opened:
            raise InputError(f"--data all: no data set is there; {'; '.join(missing.values())}")
    return list(opened.values()), missing


def chosen_pictures(dataset: Dataset, limit: int | None) -> list[int]:
    """Indices of `limit` pictures spread evenly over the set; None is all."""
    length = len(dataset)
    if limit is None or limit >= length:
        return list(range(length))
    return [number * length // limit for number in range(limit)]


def evaluate_sets(
    setup: Setup, datasets: Sequence[Dataset], missing: dict[str, str], limit: int | None, report: Report
) -> tuple[str, dict[str, Any]]:
    """Label the sets, and give the kind and content of the results file.

    Args:
        setup: what labels, and how; with two paths the kind is "dataset-parity", else "datasets".
        datasets: the sets.
        missing: recorded in the content: sets left out, and why.
        limit: pictures of each set; None is all.
        report: called after every picture.

    Raises:
        InputError: a source cannot be opened or run a policy, or a picture cannot be read or is not labelled.
    """
    rows: list[Any] = []
    with ExitStack() as stack:
        sources = setup.open(stack)
        sets = [(dataset, chosen_pictures(dataset, limit)) for dataset in datasets]
        counted = stack.enter_context(closing(count_sets(setup, sources, sets, report)))
        for dataset, counts in zip(datasets, counted, strict=True):
            for policy, rejection in enumerate(setup.policies):
                scores = [
                    _scores(totals, source, dataset, rejection, setup.short_side)
                    for totals, source in zip(counts.totals[policy], sources, strict=True)
                ]
                rows.append(scores[0] if len(scores) == 1 else Parity.of(scores, counts.agreement(policy)))
        named = {"source": description(sources[0])}
        if len(sources) > 1:
            named["against"] = description(sources[1])
        content = named | {
            "presets": [source.preset for source in sources],
            "short_side": setup.short_side,
            "missing": missing,
            "results": [asdict(row) for row in rows],
        }
    return "datasets" if len(setup.paths) == 1 else "dataset-parity", content


def _scores(
    totals: Totals, source: Source, dataset: Dataset, rejection: str, short_side: int | None
) -> DatasetScores:
    confusion = totals.confusion
    if not confusion.counts.any():
        raise InputError(
            f"{dataset.name}, split {dataset.split}: none of its {totals.pictures} pictures has a labelled "
            "pixel; check the labels' values"
        )
    own = isinstance(dataset, FileDataset) and dataset.source.kind == "own"
    whole = totals.pictures == len(dataset) and dataset.split == "val"
    as_published = whole and not own and short_side == SHORT_SIDE
    return DatasetScores(
        data=dataset.name,
        split=dataset.split,
        pictures=totals.pictures,
        of=len(dataset),
        categories=len(dataset.names),
        rejection=rejection,
        miou=confusion.miou(),
        fwiou=confusion.fwiou(),
        pixel_accuracy=confusion.pixel_accuracy(),
        class_accuracy=confusion.mean_accuracy(),
        kept=totals.mean_kept(),
        as_published=as_published,
        published=published_miou(source.preset, rejection, dataset.name) if as_published else None,
        per_category=tuple(
            CategoryScore(name, _percent(iou), _percent(accuracy), int(pixels))
            for name, iou, accuracy, pixels in zip(
                dataset.classes,
                np.where(confusion.occurring(), confusion.iou(), np.nan),
                confusion.accuracy(),
                confusion.counts.sum(1),
                strict=True,
            )
        ),
    )


def _percent(share: float) -> float | None:
    return None if np.isnan(share) else float(100 * share)
