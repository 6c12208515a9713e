"""mIoU on procedural scenes that training never draws, held-out colour-thing pairs included."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..train.scenes import HELD_OUT, SEEN, VOCABULARY, make_scene
from .miou import Confusion
from .predictors import Predictor


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


def evaluate_scenes(
    predict: Predictor,
    scenes: int,
    categories: int,
    rejection: str,
    size: int,
    progress: Callable[[int, int], None] | None = None,
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
    confusion = Confusion(categories)
    kept = []
    for seed in range(scenes):
        scene = make_scene(seed, size, split="test")
        prediction = predict(scene.image)
        confusion.add(scene.labels, prediction.labels)
        kept.append(prediction.kept)
        if progress is not None:
            progress(seed + 1, scenes)
    index = {name: position for position, name in enumerate(VOCABULARY)}
    return SceneScores(
        scenes=scenes,
        categories=categories,
        rejection=rejection,
        miou_seen=confusion.miou(index[name] for name in SEEN),
        miou_held_out=confusion.miou(index[name] for name in HELD_OUT),
        miou=confusion.miou(),
        pixel_accuracy=confusion.pixel_accuracy(),
        kept=tuple(float(count) for count in np.mean(kept, axis=0)),
    )
