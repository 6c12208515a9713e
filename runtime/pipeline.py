"""The four steps from a picture to its result; each may run in a thread of its own."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..engines.backends import Engines
from ..engines.engine import Value
from .decoder import Decoded, decode
from .held_vocabulary import Categories
from .images import Source, load_image
from .labels import label_map
from .rejection import Rejection
from .resize import resize_short_side
from .result import Result
from .timing import timed

_FEATURES = ("embed", "guidance1", "guidance2", "guidance3")


@dataclass(frozen=True, eq=False)
class Prepared:
    """A picture, uint8 (H, W, 3), with the network's input made of it, (1, 3, S, S)."""

    image: np.ndarray
    pixels: Value
    timings: dict[str, float]


@dataclass(frozen=True, eq=False)
class EncodedPicture:
    """A picture with what the stage `image` made of it.

    Attributes:
        engines: that made it; only they can go on with it.
        image: uint8 (H, W, 3).
        features: the outputs of the stage by name, in the bundle's precision and where the engines keep
            them: the embedding, (1, C, h, h), and the image guidance of the three stages.
        timings: milliseconds by step and stage.
    """

    engines: Engines
    image: np.ndarray
    features: dict[str, Value]
    timings: dict[str, float]


@dataclass(frozen=True, eq=False)
class Refined:
    """A picture, uint8 (H, W, 3), with what the decoder left of it."""

    image: np.ndarray
    decoded: Decoded
    timings: dict[str, float]


def prepare(engines: Engines, source: Source, short_side: int | None) -> Prepared:
    """Load a picture, resize it and run the stage `pixels`; raises InputError as `load_image` does."""
    timings: dict[str, float] = {}
    with timed(timings, "load"):
        image = load_image(source)
    with timed(timings, "resize"):
        resized = resize_short_side(image, short_side)
    engine = engines["pixels"]
    with timed(timings, "pixels"):
        pixels = engine.run({"image": resized[None]})["pixels"]
    return Prepared(image, pixels, timings)


def encode(engines: Engines, batch: Sequence[Prepared]) -> list[EncodedPicture]:
    """Run the stage `image` once on a batch of pictures; each is charged its part of the time."""
    engine = engines["image"]
    timings: dict[str, float] = {}
    with timed(timings, "image"):
        outputs = engine.run({"pixels": engines.stack([item.pixels for item in batch])})
    share = {"image": timings["image"] / len(batch)}
    return [
        EncodedPicture(
            engines,
            item.image,
            {name: outputs[name][row : row + 1] for name in _FEATURES},
            item.timings | share,
        )
        for row, item in enumerate(batch)
    ]


def refine(encoded: EncodedPicture, vocabulary: Categories, rejection: Rejection) -> Refined:
    """Run the decoder on one picture."""
    timings = dict(encoded.timings)
    decoded = decode(encoded.engines, encoded.features, vocabulary.text, rejection, timings)
    return Refined(encoded.image, decoded, timings)


def label(engines: Engines, refined: Refined, names: tuple[str, ...]) -> Result:
    """Label one picture at its own size."""
    timings, decoded = dict(refined.timings), refined.decoded
    engine = engines["label"]
    with timed(timings, "label"):
        labels, scores = label_map(engine, decoded.logits, decoded.kept_ids, *refined.image.shape[:2])
    return Result(labels, scores, names, decoded.kept, decoded.kept_ids, timings, refined.image)


def finish(encoded: EncodedPicture, vocabulary: Categories, rejection: Rejection) -> Result:
    """Decode one picture and label it at its own size."""
    return label(encoded.engines, refine(encoded, vocabulary, rejection), vocabulary.names)
