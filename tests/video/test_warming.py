"""Sizes next to those in use run ahead, and nothing runs where there are no buckets."""

import threading
import time
from pathlib import Path

import numpy as np

from sed_trt.errors import InputError
from sed_trt.runtime import Segmenter
from sed_trt.tests.fakes.engines import FakeEngines, colour_vocabulary
from sed_trt.video.warming import BucketWarmer

# For what comes at once unless a test fails.
PATIENCE_S = 60.0
VOCABULARY = colour_vocabulary()


def kept_sizes(engines: FakeEngines) -> set[tuple[int, ...]]:
    """Sizes of the indices kept at the three rejection points, of all decodes so far."""
    points = zip(*(engines[f"decode{n}"].shapes for n in (1, 2, 3)), strict=False)
    return {tuple(shapes[f"kept{n}"][0] for n, shapes in enumerate(point)) for point in points}


def wait_for(engines: FakeEngines, sizes: set[tuple[int, ...]]) -> set[tuple[int, ...]]:
    end = time.monotonic() + PATIENCE_S
    while not kept_sizes(engines) >= sizes and time.monotonic() < end:
        time.sleep(0.01)
    return kept_sizes(engines)


def test_the_next_buckets_run_once(fake_bundle: Path) -> None:
    engines = FakeEngines(buckets=(1, 2, 4))
    segmenter = Segmenter(fake_bundle, engines=engines)
    first: set[tuple[int, ...]] = {(4, 2, 1), (4, 2, 2)}
    with BucketWarmer(segmenter, VOCABULARY, None) as warmer:
        # The frame's own sizes, (4, 1, 1), have run with it; at 4 the vocabulary has no more categories.
        warmer.update((3, 1, 1))
        assert wait_for(engines, first) == first
        warmer.update((4, 1, 1))
        warmer.update((2, 1, 1))
        assert wait_for(engines, {(2, 2, 1), (2, 2, 2)}) >= {(2, 2, 1), (2, 2, 2)}
    assert len(engines["decode3"].shapes) == len(kept_sizes(engines))


def test_without_buckets_nothing_runs(fake_bundle: Path) -> None:
    engines = FakeEngines()
    threads = set(threading.enumerate())
    with BucketWarmer(Segmenter(fake_bundle, engines=engines), VOCABULARY, None) as warmer:
        warmer.update((3, 1, 1))
        assert set(threading.enumerate()) <= threads
    assert engines["image"].shapes == []


def test_a_size_that_does_not_fit_ends_the_warming_quietly(fake_bundle: Path) -> None:
    engines = FakeEngines(buckets=(1, 2, 4))

    def refuse(_inputs: object) -> dict[str, np.ndarray]:
        raise InputError("decode3: the GPU's memory is too small")

    engines["decode3"].run = refuse  # type: ignore[assignment]
    with BucketWarmer(Segmenter(fake_bundle, engines=engines), VOCABULARY, None) as warmer:
        warmer.update((1, 1, 1))
        thread = warmer._thread
        thread.join(PATIENCE_S)
        assert not thread.is_alive()
        warmer.update((2, 1, 1))
