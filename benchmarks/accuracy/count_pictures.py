"""The pictures of data sets counted, in one process or several, and going on from what was kept before."""

from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, closing, nullcontext, suppress
from typing import Any

import numpy as np

from ... import __version__
from ...errors import InputError
from ...train.datasets import Dataset
from .count_processes import counted_in_processes
from .counts import PictureCounts, SetCounts
from .picture_counter import PictureCounter, Setup
from .predictors import Source
from .saved_counts import Chosen, SavedSet, source_digest

# Called with (what is being done, steps done, steps in all).
Report = Callable[[str, int, int], None]


def count_sets(
    setup: Setup, sources: Sequence[Source], sets: Sequence[Chosen], report: Report
) -> Generator[SetCounts, None, None]:
    """Label the chosen pictures of one set after the other, those left out that `setup.saved` already has.

    Args:
        setup: what labels, and how.
        sources: those of `setup`, opened.
        sets: what is labelled.
        report: called after every picture.

    Raises:
        InputError: a picture cannot be read, a source cannot run a policy, or the counts cannot be kept.
    """
    begun: AbstractContextManager[Sequence[SavedSet | None]] = nullcontext([None] * len(sets))
    if setup.saved is not None:
        begun = setup.saved.begun(identifying(setup, sources), sets)
    with begun as files:
        for (dataset, chosen), file in zip(sets, files, strict=True):
            yield _count_set(setup, sources, dataset, chosen, file, report)


def identifying(setup: Setup, sources: Sequence[Source]) -> dict[str, Any]:
    """What of the sources and settings can change the counts, as JSON can hold it.

    Raises:
        InputError: the file of a source cannot be read.
    """
    return {
        "sed_trt": __version__,
        "sources": [
            [source_digest(path), source.runs_on] for path, source in zip(setup.paths, sources, strict=True)
        ],
        "policies": list(setup.policies),
        "short_side": setup.short_side,
    }


def _count_set(
    setup: Setup,
    sources: Sequence[Source],
    dataset: Dataset,
    chosen: Sequence[int],
    file: SavedSet | None,
    report: Report,
) -> SetCounts:
    counts = SetCounts(len(chosen), len(dataset.classes), len(setup.policies), len(sources))
    if file is not None:
        file.load(counts)
    if not counts.remaining():
        return counts
    texts = [_embedded(source, dataset, report) for source in sources]
    what = f"{dataset.name}, {len(dataset.names)} categories, {', '.join(setup.policies)}"
    report(what, int(counts.done.sum()), len(chosen))
    unsaved = 0
    try:
        with closing(_counted(setup, sources, texts, dataset, chosen, counts.remaining())) as pictures:
            for picture in pictures:
                counts.add(picture)
                unsaved += 1
                report(what, int(counts.done.sum()), len(chosen))
                if file is not None and unsaved >= setup.save_every:
                    file.save(counts)
                    unsaved = 0
    except BaseException:
        if file is not None and unsaved and counts.is_whole():
            # What went wrong first is what is said.
            with suppress(InputError):
                file.save(counts)
        raise
    if file is not None and unsaved:
        file.save(counts)
    return counts


def _counted(
    setup: Setup,
    sources: Sequence[Source],
    texts: Sequence[np.ndarray],
    dataset: Dataset,
    chosen: Sequence[int],
    positions: Sequence[int],
) -> Generator[PictureCounts, None, None]:
    if setup.processes > 1 and len(positions) > 1:
        runs_on = [source.runs_on for source in sources]
        yield from counted_in_processes(setup, runs_on, texts, dataset, chosen, positions)
    else:
        yield from map(PictureCounter(setup, sources, texts, dataset, chosen), positions)


def _embedded(source: Source, dataset: Dataset, report: Report) -> np.ndarray:
    what = f"embedding {len(dataset.names)} names"
    return source.embed(dataset.names, lambda done, total: report(what, done, total))
