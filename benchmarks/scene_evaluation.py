"""mIoU on procedural scenes that training never draws, held-out colour-thing pairs included."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..train.scenes import HELD_OUT, SEEN, VOCABULARY, make_scene
from .miou import Confusion
from .predictors import Prediction, Predictor

Progress = Callable[[int, int], None]


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


@dataclass(frozen=True)
class Parity:
    """Two predictors on the same scenes.

    Attributes:
        source: what the one in question reached.
        against: what its reference reached.
        drop: mIoU of the reference less that of the one in question, in percentage points.
        agreement: percent of the pixels that both label alike.
    """

    source: SceneScores
    against: SceneScores
    drop: float
    agreement: float


class Tally:
    """Counts of one predictor over the scenes."""

    def __init__(self, categories: int, rejection: str) -> None:
        self._categories, self._rejection = categories, rejection
        self._confusion = Confusion(categories)
        self._kept: list[tuple[int, ...]] = []

    def add(self, labels: np.ndarray, prediction: Prediction) -> None:
        """Count one scene: its true labels and what the predictor gave."""
        self._confusion.add(labels, prediction.labels)
        self._kept.append(prediction.kept)

    def scores(self) -> SceneScores:
        """The scores of all scenes added."""
        index = {name: position for position, name in enumerate(VOCABULARY)}
        confusion = self._confusion
        return SceneScores(
            scenes=len(self._kept),
            categories=self._categories,
            rejection=self._rejection,
            miou_seen=confusion.miou(index[name] for name in SEEN),
            miou_held_out=confusion.miou(index[name] for name in HELD_OUT),
            miou=confusion.miou(),
            pixel_accuracy=confusion.pixel_accuracy(),
            kept=tuple(float(count) for count in np.mean(self._kept, axis=0)),
        )


def evaluate_scenes(
    predict: Predictor,
    scenes: int,
    categories: int,
    rejection: str,
    size: int,
    progress: Progress | None = None,
) -> SceneScores:
    """Label the first `scenes` scenes of the split "test".

    Args:
        predict: over a vocabulary that starts with the scenes' own.
        scenes: how many.
        categories: size of that vocabulary.
        rejection: recorded in the result.
        size: side of the scenes, in pixels.
        progress: called with (scenes done, scenes in all).
    """
    tally = Tally(categories, rejection)
    for seed in range(scenes):
        scene = make_scene(seed, size, split="test")
        tally.add(scene.labels, predict(scene.image))
        if progress is not None:
            progress(seed + 1, scenes)
    return tally.scores()


def compare_on_scenes(
    predict: Predictor,
    reference: Predictor,
    scenes: int,
    categories: int,
    rejection: str,
    size: int,
    progress: Progress | None = None,
) -> Parity:
    """Label the same scenes with two predictors; arguments as those of `evaluate_scenes`."""
    ours, theirs = Tally(categories, rejection), Tally(categories, rejection)
    alike = pixels = 0
    for seed in range(scenes):
        scene = make_scene(seed, size, split="test")
        given, expected = predict(scene.image), reference(scene.image)
        ours.add(scene.labels, given)
        theirs.add(scene.labels, expected)
        alike += int((given.labels == expected.labels).sum())
        pixels += expected.labels.size
        if progress is not None:
            progress(seed + 1, scenes)
    source, against = ours.scores(), theirs.scores()
    return Parity(source, against, against.miou - source.miou, 100 * alike / pixels)
