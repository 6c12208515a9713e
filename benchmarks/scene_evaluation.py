"""mIoU on procedural scenes that training never draws, held-out colour-thing pairs included."""

from dataclasses import dataclass

import numpy as np

from ..train.scenes import HELD_OUT, INDEX, SEEN
from .parity import Parity
from .predictors import Prediction
from .set_counts import Labelled, SetCounts, Totals


@dataclass(frozen=True)
class SceneScores:
    """What one predictor reached.

    Attributes:
        scenes: how many were labelled.
        categories: size of the vocabulary it chose from.
        rejection: the policy, as on the command line.
        miou_seen: percent, over the categories of training.
        miou_held_out: percent, over the colour-thing pairs training never saw.
        miou: percent, over all that occur.
        pixel_accuracy: percent.
        kept: mean number of categories alive after each rejection point.
    """

    scenes: int
    categories: int
    rejection: str
    miou_seen: float
    miou_held_out: float
    miou: float
    pixel_accuracy: float
    kept: tuple[float, ...]


class Tally:
    """Counts of one predictor over the scenes."""

    def __init__(self, categories: int, rejection: str) -> None:
        self._rejection = rejection
        self._totals = Totals(categories)
        self._names = np.arange(categories)

    def add(self, labels: np.ndarray, prediction: Prediction) -> None:
        """Count one scene: its true labels and what the predictor gave."""
        self._totals.add(Labelled.of(labels, prediction, self._names, len(self._names)))

    def scores(self) -> SceneScores:
        """The scores of all scenes added."""
        return scene_scores(self._totals, self._rejection)


def scene_scores(totals: Totals, rejection: str) -> SceneScores:
    """The scores of what was counted over scenes; `rejection` is recorded in them."""
    confusion = totals.confusion
    return SceneScores(
        scenes=totals.pictures,
        categories=len(confusion.counts),
        rejection=rejection,
        miou_seen=confusion.miou(INDEX[name] for name in SEEN),
        miou_held_out=confusion.miou(INDEX[name] for name in HELD_OUT),
        miou=confusion.miou(),
        pixel_accuracy=confusion.pixel_accuracy(),
        kept=totals.mean_kept(),
    )


def scene_parity(counts: SetCounts, policy: int, rejection: str) -> Parity[SceneScores]:
    """Two sources on the same scenes, under the policy at this place."""
    scores = [scene_scores(totals, rejection) for totals in counts.totals[policy]]
    return Parity.of(scores, counts.agreement(policy))
