"""Sizes that the next frames may need run ahead, since backends with a device are slow at a new size.

Kept categories are padded to one of a few sizes, the buckets. From one frame to the next their number changes
little, so the next larger bucket at each rejection point is what a video will need next. A thread runs the
decoder on an empty image with it, once for each combination.
"""

import itertools
import queue
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress

import numpy as np

from ..errors import InputError
from ..runtime import Segmenter, Vocabulary

_Sizes = tuple[int, ...]
# Pixels of the empty image's sides.
_SIDE = 64


class BucketWarmer:
    """Warms the buckets next to those of the last frame; does nothing where the backend has no buckets."""

    def __init__(self, segmenter: Segmenter, vocabulary: Vocabulary, short_side: int | None) -> None:
        self._segmenter = segmenter
        self._vocabulary = vocabulary
        self._buckets = segmenter.buckets
        self._short_side = short_side
        self._wanted: queue.SimpleQueue[_Sizes | None] = queue.SimpleQueue()
        self._known: set[_Sizes] = set()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sed-trt-warm", daemon=True)

    def __enter__(self) -> "BucketWarmer":
        if self._buckets is not None:
            self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._stop.set()
        self._wanted.put(None)
        if self._thread.is_alive():
            self._thread.join()

    def update(self, kept: Sequence[int]) -> None:
        """Take the numbers of categories that a frame kept at the rejection points."""
        if self._buckets is None:
            return
        own = tuple(self._bucket(count) for count in kept)
        for sizes in itertools.product(*((size, self._next(size)) for size in own)):
            # Later points never have more categories; the frame's own sizes have just run.
            if sizes not in self._known and list(sizes) == sorted(sizes, reverse=True):
                self._known.add(sizes)
                if sizes != own:
                    self._wanted.put(sizes)

    def _bucket(self, count: int) -> int:
        assert self._buckets is not None
        return next((size for size in self._buckets if size >= count), count)

    def _next(self, size: int) -> int:
        """The bucket after `size`, or `size` itself where the vocabulary cannot fill more."""
        return self._bucket(size + 1) if size < len(self._vocabulary) else size

    def _run(self) -> None:
        # A size that the device cannot take fails again, with its error, if a frame ever needs it.
        with suppress(InputError):
            empty = None
            while (sizes := self._wanted.get()) is not None and not self._stop.is_set():
                if empty is None:
                    empty = self._segmenter.encode(np.zeros((_SIDE, _SIDE, 3), np.uint8), self._short_side)
                self._segmenter(empty, self._vocabulary, _FirstCategories(sizes))


class _FirstCategories:
    """A policy that keeps so many of the first categories at each rejection point, or all there are."""

    def __init__(self, counts: Sequence[int]) -> None:
        self._counts: Iterator[int] = iter(counts)

    def keep(self, votes: np.ndarray) -> np.ndarray:
        """See `Rejection.keep`."""
        return np.arange(min(next(self._counts), votes.shape[1]), dtype=np.int64)
