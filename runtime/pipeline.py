"""The four steps from an image to its result, each of which may run in a thread of its own.

`prepare` loads the image and makes the network's input; `encode` runs the image encoder on a batch of inputs;
`decode` runs the scout and the decoder on one image with a vocabulary, and rejects categories in between;
`label` makes the label map. `warm_up` runs all of them at every size that images can need.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np

from ..bundle import Manifest
from ..engines.engine import DeviceEngine, Engines, Value, fetch
from ..engines.profiles import BAND_SIDE, SENTENCES, TILE_SIDE, label_rows, tile_rows
from ..host import MAX_TILE_VALUES, label_bands, source_coordinates
from ..stages import DECODER, FOLDED_SCOUT, GATHERS, LABEL_GPU, STAGES, StageDefinition
from .images import ImageSource, load_image, resize_short_side
from .rejection import Rejection, padded
from .result import Result
from .text import Progress
from .vocabulary import Vocabulary

# By stage of the decoder, gathers included, the tensors that later stages take.
_NEEDED_LATER = {
    stage.name: {tensor.name for later in STAGES[STAGES.index(stage) + 1 :] for tensor in later.inputs}
    for stage in (*DECODER, *GATHERS.values())
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
    values = decoder_inputs(encoded, vocabulary)
    kept_ids = indices = np.arange(len(vocabulary), dtype=np.int64)
    kept: list[int] = []
    for stage in DECODER:
        if stage.kept:
            values[stage.kept] = _indices_for_stages(engines, indices)
        votes = run_decoder_stage(engines, stage, values, timings)
        if votes is not None:
            # A policy must not see the padding, which it would take for categories without votes.
            indices = rejection.keep(votes[:, : len(kept_ids)])
            del votes
            kept_ids = kept_ids[indices]
            kept.append(len(kept_ids))
    return DecodedImage(encoded.image, values["logits"], kept_ids, tuple(kept), timings)


def decoder_inputs(encoded: EncodedImage, vocabulary: Vocabulary) -> dict[str, Value]:
    """The tensors by name that the first stages of the decoder take."""
    engines = encoded.engines
    text = {"text": vocabulary.on_device(engines)}
    return encoded.features | text | dict(vocabulary.folded(engines) or {})


def _indices_for_stages(engines: Engines, kept: np.ndarray) -> Value:
    """Kept indices as a gather and its decoder stage take them."""
    if engines.buckets is None:
        return kept
    # Two stages take them; each would copy a numpy array to the device for itself.
    return engines.to_device(padded(kept, engines.buckets))


def run_decoder_stage(
    engines: Engines,
    stage: StageDefinition,
    values: dict[str, Any],
    timings: dict[str, float],
    stay_on_device: bool = False,
) -> Any:
    """Run a stage of the decoder, after the gather of its categories.

    Args:
        engines: those that encoded the image.
        stage: one of `DECODER`.
        values: tensors by name, its inputs among them. Its outputs are added, and those that no later stage
            takes are dropped, so that their memory can be used again.
        timings: gets its milliseconds, those of the gather included.
        stay_on_device: whether the votes do, for which the engines must be `DeviceEngines`.

    Returns:
        Its vote table; None where it has none.
    """
    folded = stage.votes == FOLDED_SCOUT.votes and all(each.name in values for each in FOLDED_SCOUT.inputs)
    executed = FOLDED_SCOUT if folded else stage
    engine = engines[executed.name]
    run = cast(DeviceEngine, engine).run_on_device if stay_on_device else engine.run
    with _timed(timings, stage.name):
        if stage.name in GATHERS:
            values |= _run_gather(engines, GATHERS[stage.name], values)
            _drop_unneeded(values, GATHERS[stage.name])
        values |= run({tensor.name: values[tensor.name] for tensor in executed.inputs})
    votes = values[stage.votes] if stage.votes else None
    _drop_unneeded(values, stage)
    return votes


def _run_gather(engines: Engines, gather: StageDefinition, values: Mapping[str, Any]) -> dict[str, Value]:
    """The outputs of one of `GATHERS`."""
    if engines.buckets is not None:
        return engines[gather.name].run({tensor.name: values[tensor.name] for tensor in gather.inputs})
    # On a CPU values are numpy arrays, and a graph would copy them once more on their way out of it.
    *sources, indices = gather.inputs
    kept = values[indices.name]
    if np.array_equal(kept, np.arange(len(values[sources[0].name]))):
        gathered = [values[source.name] for source in sources]
    else:
        gathered = [np.take(values[source.name], kept, axis=0) for source in sources]
    return {output.name: value for output, value in zip(gather.outputs, gathered, strict=True)}


def _drop_unneeded(values: dict[str, Any], stage: StageDefinition) -> None:
    for name in values.keys() - _NEEDED_LATER[stage.name]:
        del values[name]


def label(
    engines: Engines, decoded: DecodedImage, names: tuple[str, ...], with_scores: bool = True
) -> Result:
    """Label every pixel of one image, at the image's own size; `names` are those of the vocabulary."""
    timings = dict(decoded.timings)
    height, width = decoded.image.shape[:2]
    with _timed(timings, "label"):
        labels, scores = label_map(engines, decoded.logits, decoded.kept_ids, height, width, with_scores)
    return Result(labels, scores, names, decoded.kept, decoded.kept_ids, timings, decoded.image)


def label_map(
    engines: Engines,
    logits: Value,
    kept_ids: np.ndarray,
    height: int,
    width: int,
    with_scores: bool = True,
) -> tuple[np.ndarray, np.ndarray | None]:
    """Labels uint16 and scores float32, both (height, width), from logits (K', h, w).

    Labels are entries of `kept_ids`, int64 (K,), K <= K'; scores are probabilities, or None without
    `with_scores`. Maps in `logits` beyond K are padding and never win.
    """
    kept = np.pad(kept_ids, (0, logits.shape[0] - len(kept_ids)))
    rows = source_coordinates(logits.shape[1], height)
    columns = source_coordinates(logits.shape[2], width)
    engine = engines[engines.label_stage]

    def run(down: slice, across: slice) -> dict[str, Any]:
        return engine.run({"logits": logits, "kept": kept, "rows": rows[down], "columns": columns[across]})

    labels = np.empty((height, width), dtype=np.uint16)
    scores = np.empty((height, width), dtype=np.float32) if with_scores else None
    if engines.label_stage == LABEL_GPU.name:
        _label_tiles(engines, run, len(kept), labels, scores)
        return labels, scores
    for down, across in label_bands(height, width, len(kept), label_rows(len(kept)), BAND_SIDE):
        outputs = run(down, across)
        labels[down, across] = outputs["labels"]
        if scores is not None:
            scores[down, across] = outputs["scores"]
    return labels, scores


def _label_tiles(
    engines: Engines,
    run: Callable[[slice, slice], dict[str, Any]],
    categories: int,
    labels: np.ndarray,
    scores: np.ndarray | None,
) -> None:
    """Fill `labels` and `scores` with what `run` gives of each tile, and wait for the device once."""
    height, width = labels.shape
    rows = tile_rows(categories)
    tiles = list(label_bands(height, width, categories, rows, TILE_SIDE, MAX_TILE_VALUES))
    names = ("label_bytes",) if scores is None else ("label_bytes", "label_scores")
    outputs = []
    for down, across in tiles:
        values = run(down, across)
        # What nobody reads is released before the next tile.
        outputs += [values[name] for name in names]
        del values
    arrays = iter(fetch(engines, outputs))
    for down, across in tiles:
        labels[down, across] = next(arrays).view("<u2")[..., 0]
        if scores is not None:
            scores[down, across] = next(arrays)


def finish(
    encoded: EncodedImage, vocabulary: Vocabulary, rejection: Rejection, with_scores: bool = True
) -> Result:
    """Decode and label one image."""
    decoded = decode(encoded, vocabulary, rejection)
    return label(encoded.engines, decoded, vocabulary.names, with_scores)


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

    Each decoder stage sees one number of categories and runs once with each. The gathers before them see
    pairs of numbers; they run with equal ones only, since no kernel of theirs is compiled for a shape.

    Args:
        engines: those to warm up.
        manifest: of their bundle.
        vocabulary: the one that will be used: larger buckets of category counts are left out. With None all
            buckets are visited, and the stage `text` runs too, but `scout` takes one category.
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
    done = 0

    def report_one_more() -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done, batch + len(sizes))

    empty = np.zeros((manifest.image_size, manifest.image_size, 3), dtype=np.uint8)
    prepared = prepare(engines, empty, None)
    for count in range(1, batch + 1):
        encoded = encode(engines, [prepared] * count)[0]
        report_one_more()
    for size in sizes:
        decoded = decode(encoded, vocabulary, _FixedSize(size))
        height = min(_LABEL_SIDE, label_rows(size))
        label_map(engines, decoded.logits, decoded.kept_ids, height, _LABEL_SIDE)
        report_one_more()
    engines.warmed_up()


def _run_text(engines: Engines, manifest: Manifest) -> None:
    # A full batch is what a GPU is tuned for; on a CPU it would only take longer.
    sentences = 1 if engines.buckets is None else SENTENCES
    engines["text"].run({"tokens": np.zeros((sentences, manifest.context_length), dtype=np.int64)})


class _FixedSize:
    """A rejection policy that keeps a given number of categories, whatever the votes."""

    def __init__(self, size: int) -> None:
        self._size = size

    def keep(self, votes: np.ndarray) -> np.ndarray:
        """The first indices, padded with -1 where there are fewer categories."""
        indices = np.arange(self._size, dtype=np.int64)
        indices[votes.shape[1] :] = -1
        return indices
