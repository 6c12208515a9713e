"""Every stage run once at every size that it will meet, so that no picture waits for a first run."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from ..engines.backends import Engines
from ..engines.bundle import Manifest
from ..engines.engine import Value
from ..engines.profiles import SENTENCES, label_rows

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
