"""Pictures of a data set labelled with every policy and source, and counted one by one."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...errors import InputError
from ...runtime import Rejection
from ...train.datasets import Dataset
from .counts import Labelled, PictureCounts
from .predictors import Predictor, Source, open_source
from .protocol import limit_short_side
from .saved_counts import SavedCounts


@dataclass(frozen=True)
class Setup:
    """What labels, and how.

    Attributes:
        paths: of the checkpoint or bundle in question, and of the one it is compared with if there is one.
        policies: rejection policies by their text on the command line.
        backend: of bundles; None is "auto".
        emulate: whether a half-precision bundle that only the CPU can run is rounded after every operator.
        short_side: first resize of the pictures; None gives them straight to the network.
        processes: how many label pictures side by side, each with sources of its own.
        saved: where the counts are kept meanwhile; None keeps them nowhere.
        save_every: pictures between two saves.
    """

    paths: tuple[Path, ...]
    policies: Mapping[str, Rejection]
    backend: str | None = None
    emulate: bool = True
    short_side: int | None = None
    processes: int = 1
    saved: SavedCounts | None = None
    save_every: int = 25

    def open(self, stack: ExitStack, threads: int | None = None) -> list[Source]:
        """Open the sources until `stack` closes; arguments and errors as those of `open_source`."""
        return [
            stack.enter_context(open_source(path, self.backend, self.emulate, self.short_side, threads))
            for path in self.paths
        ]


class PictureCounter:
    """Labels one picture after another with every policy and source, and counts."""

    def __init__(
        self,
        setup: Setup,
        sources: Sequence[Source],
        texts: Sequence[np.ndarray],
        dataset: Dataset,
        chosen: Sequence[int],
    ) -> None:
        """Prepare the predictors; `texts` are each source's embeddings of the data set's names.

        Raises:
            InputError: a source cannot run a policy.
        """
        self._dataset, self._chosen = dataset, chosen
        policies = tuple(setup.policies.values())
        self._predictors: list[Predictor] = [
            source.with_text(dataset.names, text, policies)
            for source, text in zip(sources, texts, strict=True)
        ]

    def __call__(self, position: int) -> PictureCounts:
        """Count the picture at this place among the chosen ones.

        Raises:
            InputError: it cannot be read or labelled; the message names it.
        """
        data, index = self._dataset, self._chosen[position]
        sample = limit_short_side(data[index], data.max_short_side)
        try:
            predicted = [predict(sample.image) for predict in self._predictors]
        except InputError as error:
            raise InputError(f"{data.identity(index)}: {error}") from error
        labelled, alike = [], []
        for predictions in zip(*predicted, strict=True):
            first = predictions[0].labels
            same = np.logical_and.reduce([first == each.labels for each in predictions])
            alike.append(int(same.sum()))
            labelled.append(
                tuple(
                    Labelled.of(sample.labels, each, data.scored_as, len(data.classes))
                    for each in predictions
                )
            )
        return PictureCounts(position, tuple(labelled), tuple(alike), sample.labels.size)
