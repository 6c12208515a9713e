"""The four steps from a picture to its result; each may run in a thread of its own."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..bundle import Manifest
from ..engines.engine import Engines, Value
from ..engines.profiles import SENTENCES, label_rows
from .images import Source, load_image, resize_short_side
from .labels import label_map
from .rejection import Rejection, padded
from .result import Result
from .vocabulary import Categories


@contextmanager
def timed(timings: dict[str, float], stage: str) -> Iterator[None]:
    """Set `timings[stage]` to the wall time of the block in milliseconds."""
    start = time.perf_counter()
    yield
    timings[stage] = (time.perf_counter() - start) * 1000


@dataclass(frozen=True, eq=False)
class Decoded:
    """What the decoder leaves of one image.

    Attributes:
        logits: float32 (K', 8h, 8h), K' >= K: one map per surviving category, then padding that never wins.
        kept_ids: int64 (K,), rising indices of the survivors in the vocabulary.
        kept: categories alive after `scout`, `decode1` and `decode2`.
    """

    logits: Value
    kept_ids: np.ndarray
    kept: tuple[int, int, int]


def decode(
    engines: Engines,
    features: Mapping[str, Value],
    text: Value,
    rejection: Rejection,
    timings: dict[str, float],
) -> Decoded:
    """Run `scout` and the three decoder stages on one image.

    `features` are the outputs of the stage `image` with a batch axis of 1, `text` is float32 (T, P, C). Sets
    the milliseconds of each stage in `timings`.
    """

    def run(stage: str, inputs: dict[str, Value]) -> dict[str, Any]:
        engine = engines[stage]
        with timed(timings, stage):
            return engine.run(inputs)

    def decode_stage(number: int, kept: np.ndarray, inputs: dict[str, Value]) -> dict[str, Any]:
        indices = {f"kept{number - 1}": padded(kept, engines.buckets)}
        guidance = {f"guidance{number}": features[f"guidance{number}"]}
        return run(f"decode{number}", inputs | indices | guidance)

    image_and_text = {"embed": features["embed"], "text": text}
    scouted = run("scout", image_and_text)
    kept0 = rejection.keep(scouted["votes0"])
    first = decode_stage(1, kept0, image_and_text)
    # A policy must not see the padding, which would count for it as categories without a vote.
    kept1 = rejection.keep(first["votes1"][:, : len(kept0)])
    second = decode_stage(2, kept1, {"x1": first["x1"], "cost1": first["cost1"]})
    kept2 = rejection.keep(second["votes2"][:, : len(kept1)])
    third = decode_stage(3, kept2, {"x2": second["x2"], "cost2": second["cost2"]})
    return Decoded(third["logits"], kept0[kept1][kept2], (len(kept0), len(kept1), len(kept2)))


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


Progress = Callable[[int, int], None]
Inputs = dict[str, Value]

_LABEL_SIDE = 64


def warm_up(
    engines: Engines, manifest: Manifest, text: Value | None, batch: int, progress: Progress | None = None
) -> None:
    """Run all stages on an empty picture: the encoder on 1 to `batch` of them, the decoder at every bucket.

    `text` are the embeddings that will be used, float32 (T, P, C). Buckets too large for T are left out;
    without it all are visited, and the stage `text` too. `progress` is called with the runs done and their
    total.

    Raises:
        InputError: a size is beyond what the engines take, or the device's memory is too small.
    """
    if text is None:
        _run_text(engines, manifest)
        text = np.zeros((1, len(manifest.templates), manifest.embed_dim), dtype=np.float32)
        text[..., 0] = 1
        sizes: Sequence[int] = engines.buckets or (1,)
    else:
        sizes = _sizes(engines.buckets, text.shape[0])
    total = batch + len(sizes) + len(sizes) * (len(sizes) + 1)
    done = 0
    features: dict[str, Any] = {}
    for count in range(1, batch + 1):
        features = _run_encoder(engines, manifest, count)
        done += 1
        _tell(progress, done, total)
    for _ in _run_decoder(engines, features, text, sizes):
        done += 1
        _tell(progress, done, total)


def _sizes(buckets: Sequence[int] | None, categories: int) -> Sequence[int]:
    """The sizes that kept indices of up to so many categories are padded to."""
    if buckets is None:
        return (categories,)
    smaller = [size for size in buckets if size < categories]
    return buckets[: len(smaller) + 1]


def _run_text(engines: Engines, manifest: Manifest) -> None:
    # A CPU gains nothing from a full batch but the time it takes.
    sentences = 1 if engines.buckets is None else SENTENCES
    engines["text"].run({"tokens": np.zeros((sentences, manifest.context_length), dtype=np.int64)})


def _run_encoder(engines: Engines, manifest: Manifest, count: int) -> dict[str, Any]:
    """The features of the first of `count` empty pictures."""
    side = manifest.image_size
    picture = np.zeros((1, side, side, 3), dtype=np.uint8)
    pixels = engines["pixels"].run({"image": picture})["pixels"]
    outputs = engines["image"].run({"pixels": engines.stack([pixels] * count)})
    return {name: value[0:1] for name, value in outputs.items()}


def _run_decoder(
    engines: Engines, features: dict[str, Any], text: Value, sizes: Sequence[int]
) -> Iterator[None]:
    """Run the decoder at every size, and from every size to every one that is not larger."""
    image_and_text = {"embed": features["embed"], "text": text}
    engines["scout"].run(image_and_text)
    last = {}
    for size in sizes:
        kept = _kept(size, text.shape[0])
        first = engines["decode1"].run(image_and_text | {"kept0": kept, "guidance1": features["guidance1"]})
        yield
        for smaller in (other for other in sizes if other <= size):
            second = engines["decode2"].run(_inputs(2, first, _kept(smaller, size), features))
            last[smaller] = second
            yield
    for size in sizes:
        for smaller in (other for other in sizes if other <= size):
            third = engines["decode3"].run(_inputs(3, last[size], _kept(smaller, size), features))
            if smaller == size:
                _run_label(engines, third["logits"])
            yield


def _inputs(number: int, before: dict[str, Any], kept: np.ndarray, features: dict[str, Any]) -> Inputs:
    names = (f"x{number - 1}", f"cost{number - 1}")
    guidance = f"guidance{number}"
    return {name: before[name] for name in names} | {
        f"kept{number - 1}": kept,
        guidance: features[guidance],
    }


def _kept(size: int, categories: int) -> np.ndarray:
    """The first of so many categories, padded to `size`."""
    indices = np.arange(size, dtype=np.int64)
    indices[categories:] = -1
    return indices


def _run_label(engines: Engines, logits: Value) -> None:
    categories = logits.shape[0]
    columns = np.zeros(_LABEL_SIDE, dtype=np.float32)
    rows = columns[: label_rows(categories)]
    kept = np.zeros(categories, dtype=np.int64)
    engines["label"].run({"logits": logits, "kept": kept, "rows": rows, "columns": columns})


def _tell(progress: Progress | None, done: int, total: int) -> None:
    if progress is not None:
        progress(done, total)
