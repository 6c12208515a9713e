"""Rejection on the device: between the stages of the decoder the host neither reads nor waits.

The stage `select` turns votes into the indices of the kept categories, padded with -1. How many they are is
known on the device alone, so the size to pad them to is guessed: it is the last image's. The host reads the
true numbers together with the labels, and where one does not fit, repeats from that rejection point with the
size that does. The categories kept are those of the policy in any case.
"""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..engines.engine import DeviceEngines, Value
from ..stages import DECODER, REJECTION_POINTS, SELECT, VOTE_RANKS
from .pipeline import DecodedImage, EncodedImage, decode, decoder_inputs, label, run_decoder_stage
from .rejection import Budget, KeepAll, Rejection, bucket_size, device_rule, padded
from .result import Result
from .vocabulary import Vocabulary


@dataclass(frozen=True, eq=False)
class _Point:
    """What is on the device when the stage of a rejection point has run; after the last stage the logits.

    Attributes:
        values: tensors by name that later stages take.
        votes: the vote table; None after the last stage.
        ids: int64, indices in the vocabulary of the categories that entered the stage, padded with -1.
    """

    values: dict[str, Any]
    votes: Value | None
    ids: Value


@dataclass(frozen=True, eq=False)
class GuessedImage(DecodedImage):
    """An image that was decoded with guessed numbers of categories, which `DeviceRejection.label` checks.

    Until then its `kept_ids` are 0, 1, 2 …, one for each map of the logits, and its `kept` is empty.

    Attributes:
        encoded: the image.
        vocabulary: it was decoded with.
        rejection: likewise.
        sizes: padded number of categories at each rejection point.
        points: one for each rejection point, from which the rest can be repeated, and one for the logits.
        counts: at each rejection point how many categories are kept, int64 (1,) on the device.
        read: waits for the true number of categories at each rejection point, followed by the vocabulary's
            index for each map of the logits: int64.
    """

    encoded: EncodedImage
    vocabulary: Vocabulary
    rejection: Rejection
    sizes: tuple[int, ...]
    points: tuple[_Point, ...]
    counts: tuple[Value, ...]
    read: Callable[[], np.ndarray]


class DeviceRejection:
    """Decodes and labels images with engines on a device. Safe to use from several threads at once.

    Policies that `select` does not know, and the first image with each policy and number of categories, go
    through the host, as do vocabularies larger than the largest size that shapes are padded to.
    """

    def __init__(self, engines: DeviceEngines) -> None:
        self._engines = engines
        self._buckets = engines.buckets or ()
        # Arrays on the device that every image needs, by their content.
        self._constants: dict[tuple[str, bytes], Value] = {}
        # By policy and number of categories, the sizes that the last image needed.
        self._last_sizes: dict[tuple[Rejection, int], tuple[int, ...]] = {}
        self._lock = threading.Lock()

    def warm_up(self) -> None:
        """Load and run `select`; no kernel of it is compiled for a shape."""
        votes = np.zeros((VOTE_RANKS, 1), dtype=np.int32)
        self._select(Budget(1), votes, np.zeros(1, dtype=np.int64), size=1)

    def finish(
        self, encoded: EncodedImage, vocabulary: Vocabulary, rejection: Rejection, with_scores: bool = True
    ) -> Result:
        """Decode and label one image."""
        return self.label(self.decode(encoded, vocabulary, rejection), vocabulary.names, with_scores)

    def decode(self, encoded: EncodedImage, vocabulary: Vocabulary, rejection: Rejection) -> DecodedImage:
        """Run the scout and the decoder stages on one image, without a wait where the sizes can be guessed.

        Raises:
            InputError: the engines were built for fewer categories, or the device's memory is too small.
        """
        sizes = self._guess(rejection, len(vocabulary))
        if sizes is None:
            decoded = decode(encoded, vocabulary, rejection)
            self._remember(rejection, len(vocabulary), decoded.kept)
            return decoded
        timings = dict(encoded.timings)
        values = decoder_inputs(encoded, vocabulary)
        votes = run_decoder_stage(self._engines, DECODER[0], values, timings, stay_on_device=True)
        first = _Point(values, votes, self._constant(np.arange(len(vocabulary), dtype=np.int64)))
        return self._decode_from(encoded, vocabulary, rejection, sizes, (first,), (), timings)

    def label(self, image: DecodedImage, names: tuple[str, ...], with_scores: bool = True) -> Result:
        """Label every pixel of one image; decode it again from where a guessed size was too small.

        Raises:
            InputError: as `decode`.
        """
        if not isinstance(image, GuessedImage):
            return label(self._engines, image, names, with_scores)
        while True:
            result = label(self._engines, image, names, with_scores)
            counts, ids = np.split(image.read(), [len(REJECTION_POINTS)])
            overflows = [point for point, size in enumerate(image.sizes) if counts[point] > size]
            if not overflows:
                break
            image = self._repeat(image, overflows[0], int(counts[overflows[0]]))
        kept = tuple(int(count) for count in counts)
        self._remember(image.rejection, len(image.vocabulary), kept)
        kept_ids = ids[: kept[-1]]
        return replace(result, labels=kept_ids.astype(np.uint16)[result.labels], kept=kept, kept_ids=kept_ids)

    def _guess(self, rejection: Rejection, categories: int) -> tuple[int, ...] | None:
        """The size to pad to at each rejection point; None where the host has to choose."""
        if not self._buckets or categories > self._buckets[-1]:
            return None
        if type(rejection) is KeepAll:
            return (bucket_size(categories, self._buckets),) * len(REJECTION_POINTS)
        if type(rejection) is Budget:
            count = min(rejection.categories, categories)
            return (bucket_size(count, self._buckets),) * len(REJECTION_POINTS)
        if device_rule(rejection) is None:
            return None
        with self._lock:
            return self._last_sizes.get((rejection, categories))

    def _remember(self, rejection: Rejection, categories: int, kept: Sequence[int]) -> None:
        if device_rule(rejection) is not None:
            with self._lock:
                sizes = tuple(bucket_size(count, self._buckets) for count in kept)
                self._last_sizes[rejection, categories] = sizes

    def _repeat(self, image: GuessedImage, point: int, count: int) -> GuessedImage:
        """Decode again from a rejection point at which `count` categories are kept."""
        size = bucket_size(count, self._buckets)
        return self._decode_from(
            image.encoded,
            image.vocabulary,
            image.rejection,
            (*image.sizes[:point], size, *image.sizes[point + 1 :]),
            image.points[: point + 1],
            image.counts[:point],
            dict(image.timings),
        )

    def _decode_from(
        self,
        encoded: EncodedImage,
        vocabulary: Vocabulary,
        rejection: Rejection,
        sizes: tuple[int, ...],
        points: tuple[_Point, ...],
        counts: tuple[Value, ...],
        timings: dict[str, float],
    ) -> GuessedImage:
        """Reject at the last of `points` and go on from there to the logits."""
        for stage, size in zip(DECODER[len(points) :], sizes[len(points) - 1 :], strict=True):
            before = points[-1]
            selected = self._selected(rejection, len(vocabulary), before, size)
            assert stage.kept is not None
            values = before.values | {stage.kept: selected["selected"]}
            votes = run_decoder_stage(self._engines, stage, values, timings, stay_on_device=True)
            points = (*points, _Point(values, votes, selected["selected_ids"]))
            counts = (*counts, selected["count"])
        return GuessedImage(
            image=encoded.image,
            logits=points[-1].values["logits"],
            kept_ids=np.arange(sizes[-1], dtype=np.int64),
            kept=(),
            timings=timings,
            encoded=encoded,
            vocabulary=vocabulary,
            rejection=rejection,
            sizes=sizes,
            points=points,
            counts=counts,
            read=self._engines.download(self._engines.stack([*counts, points[-1].ids])),
        )

    def _selected(self, rejection: Rejection, categories: int, point: _Point, size: int) -> dict[str, Any]:
        """The outputs of `select` at a rejection point."""
        if type(rejection) is KeepAll:
            every = self._constant(padded(np.arange(categories, dtype=np.int64), self._buckets))
            count = self._constant(np.array([categories], dtype=np.int64))
            return {"selected": every, "selected_ids": every, "count": count}
        return self._select(rejection, point.votes, point.ids, size)

    def _select(self, rejection: Rejection, votes: Any, ids: Any, size: int) -> dict[str, Any]:
        rule = device_rule(rejection)
        assert rule is not None
        slots = self._constant(np.arange(size, dtype=np.int64))
        inputs = {"votes": votes, "ids": ids, "rule": self._constant(rule), "slots": slots}
        return self._engines[SELECT.name].run(inputs)

    def _constant(self, array: np.ndarray) -> Value:
        """A small array on the device, copied there once."""
        key = (array.dtype.str, array.tobytes())
        with self._lock:
            if key not in self._constants:
                self._constants[key] = self._engines.to_device(array)
            return self._constants[key]
