"""The four steps from an image to its result, each of which may run in a thread of its own.

`prepare` loads the image and makes the network's input; `encode` runs the image encoder on a batch of inputs;
`decode` runs the scout and the decoder on one image with a vocabulary, and rejects categories in between;
`label` makes the label map. `warm_up` runs all of them at every size that images can need.
"""

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import Any

import numpy as np

from ..bundle import Manifest
from ..engines.engine import Engine, Engines, Value
from ..engines.profiles import BAND_SIDE, SENTENCES, label_rows
from ..host import label_bands, source_coordinates
from ..stages import DECODER, FOLDED_SCOUT, STAGES
from .images import ImageSource, load_image, resize_short_side
from .rejection import Rejection, padded
from .result import Result
from .text import Progress
from .vocabulary import Vocabulary

# By stage of the decoder, the tensors that later stages take.
_NEEDED_LATER = {
    stage.name: {tensor.name for later in STAGES[STAGES.index(stage) + 1 :] for tensor in later.inputs}
    for stage in DECODER
}
# Height and width of the label maps of a warm-up.
_LABEL_SIDE = 64


@dataclass(frozen=True, eq=False)
class PreparedImage:
    """An image and the network's input.

    Attributes:
        image: uint8 RGB (H, W, 3).
        pixels: the input, float32 (1, 3, S, S).
        timings: milliseconds by step and stage.
    """

    image: np.ndarray
    pixels: Value
    timings: dict[str, float]


@dataclass(frozen=True, eq=False)
class EncodedImage:
    """An image and its features, ready to be decoded with any vocabulary.

    Attributes:
        engines: those that encoded the image; no others can decode the features.
        image: uint8 RGB (H, W, 3).
        features: the outputs of the stage `image` by name, with a batch axis of 1, in the bundle's precision
            and where the engines compute: the embedding, (1, C, h, h), and the guidance of three stages.
        timings: milliseconds by step and stage.
    """

    engines: Engines
    image: np.ndarray
    features: dict[str, Value]
    timings: dict[str, float]

    @property
    def nbytes(self) -> int:
        """Bytes of the image and its features."""
        return self.image.nbytes + sum(value.nbytes for value in self.features.values())

    def detached(self) -> "EncodedImage":
        """The same, with features on the host in memory of their own; those of a batch share one piece."""
        features = {
            name: value.copy() if isinstance(value, np.ndarray) else value
            for name, value in self.features.items()
        }
        return replace(self, features=features)


@dataclass(frozen=True, eq=False)
class DecodedImage:
    """An image and the logits of the categories that were kept.

    Attributes:
        image: uint8 RGB (H, W, 3).
        logits: float32 (K', 8h, 8h), K' >= K: one map per kept category, then padding that never wins.
        kept_ids: int64 (K,), rising indices of the kept categories in the vocabulary.
        kept: categories left after each rejection point.
        timings: milliseconds by step and stage.
    """

    image: np.ndarray
    logits: Value
    kept_ids: np.ndarray
    kept: tuple[int, ...]
    timings: dict[str, float]


def prepare(engines: Engines, source: ImageSource, short_side: int | None) -> PreparedImage:
    """Load an image, resize its shorter side and run the stage `pixels`.

    Raises:
        InputError: as `load_image` and `resize_short_side`, or the image is too large for the engines.
    """
    timings: dict[str, float] = {}
    with _timed(timings, "load"):
        image = load_image(source)
    with _timed(timings, "resize"):
        resized = resize_short_side(image, short_side)
    engine = engines["pixels"]
    with _timed(timings, "pixels"):
        pixels = engine.run({"image": resized[None]})["pixels"]
    return PreparedImage(image, pixels, timings)


def encode(engines: Engines, batch: Sequence[PreparedImage]) -> list[EncodedImage]:
    """Run the stage `image` once on a batch; each image's timings get an equal share of its time."""
    engine = engines["image"]
    timings: dict[str, float] = {}
    with _timed(timings, "image"):
        outputs = engine.run({"pixels": engines.stack([item.pixels for item in batch])})
    share = {"image": timings["image"] / len(batch)}
    return [
        EncodedImage(
            engines,
            item.image,
            {name: value[row : row + 1] for name, value in outputs.items()},
            item.timings | share,
        )
        for row, item in enumerate(batch)
    ]


def decode(encoded: EncodedImage, vocabulary: Vocabulary, rejection: Rejection) -> DecodedImage:
    """Run the scout and the decoder stages on one image, and reject categories after each of them.

    Raises:
        InputError: the engines were built for fewer categories, or the device's memory is too small.
    """
    engines = encoded.engines
    timings = dict(encoded.timings)
    # Tensors by name; those that no later stage takes are dropped, so that their memory can be used again.
    values: dict[str, Any] = encoded.features | {"text": vocabulary.on_device(engines)}
    folded = vocabulary.folded(engines)
    values |= folded or {}
    kept_ids = indices = np.arange(len(vocabulary), dtype=np.int64)
    kept: list[int] = []
    for stage in DECODER:
        if stage.kept:
            values[stage.kept] = padded(indices, engines.buckets)
        executed = FOLDED_SCOUT if folded and stage.votes == FOLDED_SCOUT.votes else stage
        engine = engines[executed.name]
        inputs = {tensor.name: values[tensor.name] for tensor in executed.inputs}
        with _timed(timings, stage.name):
            values |= engine.run(inputs)
        if stage.votes:
            # A policy must not see the padding, which it would take for categories without votes.
            indices = rejection.keep(values[stage.votes][:, : len(kept_ids)])
            kept_ids = kept_ids[indices]
            kept.append(len(kept_ids))
        for name in values.keys() - _NEEDED_LATER[stage.name]:
            del values[name]
    return DecodedImage(encoded.image, values["logits"], kept_ids, tuple(kept), timings)


def label(engines: Engines, decoded: DecodedImage, names: tuple[str, ...]) -> Result:
    """Label every pixel of one image, at the image's own size; `names` are those of the vocabulary."""
    timings = dict(decoded.timings)
    engine = engines["label"]
    with _timed(timings, "label"):
        labels, scores = label_map(engine, decoded.logits, decoded.kept_ids, *decoded.image.shape[:2])
    return Result(labels, scores, names, decoded.kept, decoded.kept_ids, timings, decoded.image)


def label_map(
    engine: Engine, logits: Value, kept_ids: np.ndarray, height: int, width: int
) -> tuple[np.ndarray, np.ndarray]:
    """Labels uint16 and scores float32, both (height, width), from logits (K', h, w).

    `engine` runs the stage `label`. Labels are entries of `kept_ids`, int64 (K,), K <= K'; scores are
    probabilities. Maps in `logits` beyond K are padding and never win.
    """
    kept = np.pad(kept_ids, (0, logits.shape[0] - len(kept_ids)))
    labels = np.empty((height, width), dtype=np.uint16)
    scores = np.empty((height, width), dtype=np.float32)
    rows = source_coordinates(logits.shape[1], height)
    columns = source_coordinates(logits.shape[2], width)
    bands = label_bands(height, width, len(kept), label_rows(len(kept)), BAND_SIDE)
    for down, across in bands:
        outputs = engine.run({"logits": logits, "kept": kept, "rows": rows[down], "columns": columns[across]})
        labels[down, across] = outputs["labels"]
        scores[down, across] = outputs["scores"]
    return labels, scores


def finish(encoded: EncodedImage, vocabulary: Vocabulary, rejection: Rejection) -> Result:
    """Decode and label one image."""
    return label(encoded.engines, decode(encoded, vocabulary, rejection), vocabulary.names)


@contextmanager
def _timed(timings: dict[str, float], stage: str) -> Iterator[None]:
    """Set `timings[stage]` to the wall time of the block in milliseconds."""
    start = time.perf_counter()
    yield
    timings[stage] = (time.perf_counter() - start) * 1000


def warm_up(
    engines: Engines,
    manifest: Manifest,
    vocabulary: Vocabulary | None,
    batch: int,
    progress: Progress | None = None,
) -> None:
    """Run every stage at every size that images can need, on an empty image.

    Args:
        engines: those to warm up.
        manifest: of their bundle.
        vocabulary: the one that will be used: larger buckets of category counts are left out. With None all
            buckets are visited, and the stage `text` runs too, but `scout` and `decode1` take one category.
        batch: the encoder runs on 1 to so many images.
        progress: called with the number of encoder and decoder runs done and their total.

    Raises:
        InputError: a size is beyond what the engines take, or the device's memory is too small.
    """
    buckets = engines.buckets
    if vocabulary is None:
        _run_text(engines, manifest)
        text = np.zeros((1, len(manifest.templates), manifest.embed_dim), dtype=np.float32)
        text[..., 0] = 1
        vocabulary, sizes = Vocabulary(("",), text), buckets or (1,)
    elif buckets is None:
        sizes = (len(vocabulary),)
    else:
        sizes = buckets[: 1 + sum(size < len(vocabulary) for size in buckets)]
    triples = list(_size_triples(sizes))
    done = 0

    def report_one_more() -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done, batch + len(triples))

    empty = np.zeros((manifest.image_size, manifest.image_size, 3), dtype=np.uint8)
    prepared = prepare(engines, empty, None)
    for count in range(1, batch + 1):
        encoded = encode(engines, [prepared] * count)[0]
        report_one_more()
    for triple in triples:
        decoded = decode(encoded, vocabulary, _FixedSizes(triple))
        if triple[0] == triple[2]:
            height = min(_LABEL_SIDE, label_rows(triple[2]))
            label_map(engines["label"], decoded.logits, decoded.kept_ids, height, _LABEL_SIDE)
        report_one_more()


def _run_text(engines: Engines, manifest: Manifest) -> None:
    # A full batch is what a GPU is tuned for; on a CPU it would only take longer.
    sentences = 1 if engines.buckets is None else SENTENCES
    engines["text"].run({"tokens": np.zeros((sentences, manifest.context_length), dtype=np.int64)})


def _size_triples(sizes: Sequence[int]) -> Iterator[tuple[int, int, int]]:
    """Numbers of categories to keep at the three rejection points, one triple for each decode.

    `decode2` sees the first two numbers of a triple and `decode3` the last two. Every pair of the rising
    `sizes` in which the second is not larger comes up in both places, in as few triples as possible; a
    triple of three equal sizes comes up once for each size.
    """
    for position, middle in enumerate(sizes):
        for first, last in zip_longest(sizes[position:], sizes[position::-1], fillvalue=middle):
            yield first, middle, last


class _FixedSizes:
    """A rejection policy that keeps given numbers of categories, whatever the votes."""

    def __init__(self, sizes: Iterable[int]) -> None:
        self._sizes = iter(sizes)

    def keep(self, votes: np.ndarray) -> np.ndarray:
        """The first indices, as many as the next size, padded with -1 where there are fewer categories."""
        indices = np.arange(next(self._sizes), dtype=np.int64)
        indices[votes.shape[1] :] = -1
        return indices
