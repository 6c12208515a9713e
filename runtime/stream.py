"""Streams of images, whose loading, encoding, decoding and labelling overlap in threads."""

import os
import queue
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from ..engines.engine import Engines
from ..errors import InputError
from .device_rejection import DeviceRejection
from .images import ImageSource
from .pipeline import DecodedImage, EncodedImage, PreparedImage, decode, encode, label, prepare
from .rejection import Rejection
from .result import Result
from .vocabulary import Vocabulary

Item = TypeVar("Item")
Output = TypeVar("Output")

# One result would do if all images took equally long; the second evens out their differences.
_RESULTS_AHEAD = 2


@dataclass(frozen=True, eq=False)
class StreamItem:
    """One image of a stream.

    Attributes:
        source: the image as it was given.
        result: None where the image could not be read.
        error: the message that says why, else None.
    """

    source: ImageSource
    result: Result | None
    error: str | None = None


# A change to what was decoded, before it is labelled: called with one image at a time, in order.
DecodedTransform = Callable[[Engines, DecodedImage], DecodedImage]

# An image between two steps: its source, and the last step's output or the error of an unreadable file.
_Passed = tuple[ImageSource, Output | str]


def stream_results(
    engines: Engines,
    images: Iterable[ImageSource],
    vocabulary: Vocabulary,
    rejection: Rejection,
    short_side: int | None,
    batch: int,
    scores: bool = True,
    device: DeviceRejection | None = None,
    transform: DecodedTransform | None = None,
) -> Generator[StreamItem, None, None]:
    """Segment images in order; see `Segmenter.stream`. With `device`, that one rejects.

    At most a few batches are in memory at a time, whatever the number of images.
    """

    def load(source: ImageSource) -> _Passed[PreparedImage]:
        try:
            return source, prepare(engines, source, short_side)
        except InputError as error:
            return source, str(error)

    def decode_one(encoded: EncodedImage) -> DecodedImage:
        if device is not None:
            return device.decode(encoded, vocabulary, rejection)
        return decode(encoded, vocabulary, rejection)

    def label_one(decoded: DecodedImage) -> Result:
        if device is not None:
            return device.label(decoded, vocabulary.names, scores)
        if transform is not None:
            decoded = transform(engines, decoded)
        return label(engines, decoded, vocabulary.names, scores)

    def decode_whole(prepared: PreparedImage) -> DecodedImage:
        (encoded,) = encode(engines, [prepared])
        return decode_one(encoded)

    def finish_one(prepared: PreparedImage) -> Result:
        return label_one(decode_whole(prepared))

    # The second batch is loaded while the encoder runs on the first; a whole batch leaves it at once.
    loaded = prefetch(map_threaded(load, images, pool_size()), batch)
    if engines.images_at_once is None:
        encoded = prefetch(_closing(_encode_batches(engines, loaded, batch), loaded), batch)
        at_once = engines.decodes_at_once
        decoded = _closing(map_threaded(_unless_failed(decode_one), encoded, at_once), encoded)
    elif transform is None:
        finished = map_threaded(_unless_failed(finish_one), loaded, engines.images_at_once)
        yield from _items(_closing(finished, loaded))
        return
    else:
        # A transform sees the images in order, so that labelling cannot stay in their threads.
        at_once = engines.images_at_once
        decoded = _closing(map_threaded(_unless_failed(decode_whole), loaded, at_once), loaded)
    yield from _items(prefetch(_closing(map(_unless_failed(label_one), decoded), decoded), _RESULTS_AHEAD))


def _items(labelled: Generator[_Passed[Result], None, None]) -> Iterator[StreamItem]:
    try:
        for source, outcome in labelled:
            if isinstance(outcome, str):
                yield StreamItem(source, None, outcome)
            else:
                yield StreamItem(source, outcome)
    finally:
        labelled.close()


def _encode_batches(
    engines: Engines, loaded: Iterable[_Passed[PreparedImage]], batch: int
) -> Iterator[_Passed[EncodedImage]]:
    waiting: list[_Passed[PreparedImage]] = []
    for item in loaded:
        waiting.append(item)
        if len(waiting) == batch:
            yield from _encode_batch(engines, waiting)
            waiting = []
    yield from _encode_batch(engines, waiting)


def _encode_batch(engines: Engines, loaded: list[_Passed[PreparedImage]]) -> Iterator[_Passed[EncodedImage]]:
    prepared = [outcome for _, outcome in loaded if isinstance(outcome, PreparedImage)]
    encoded = iter(encode(engines, prepared) if prepared else [])
    for source, outcome in loaded:
        yield source, outcome if isinstance(outcome, str) else next(encoded)


def _unless_failed(step: Callable[[Item], Output]) -> Callable[[_Passed[Item]], _Passed[Output]]:
    """`step` as a function of images between steps, which passes error messages on."""

    def passed(item: _Passed[Item]) -> _Passed[Output]:
        source, outcome = item
        return source, outcome if isinstance(outcome, str) else step(outcome)

    return passed


def _closing(items: Iterable[Item], source: Generator[object, None, None]) -> Generator[Item, None, None]:
    """Yield `items`, which are made from `source`, and close `source` at the end or when this is closed."""
    try:
        yield from items
    finally:
        source.close()


def pool_size() -> int:
    """Threads for work that needs a core each, such as reading or writing images: 2 to 8."""
    # More would wait for memory and disk rather than for a core.
    return min(8, max(2, os.cpu_count() or 1))


def map_threaded(
    work: Callable[[Item], Output], items: Iterable[Item], threads: int
) -> Generator[Output, None, None]:
    """Yield `work(item)` for each item, in order, computed in so many threads.

    Each output is yielded as soon as it is there, whether or not the next item has come; a thread of its own
    advances `items`. About twice as many items as threads are in work or wait. An exception in `work` or
    `items` is raised here, after the outputs before it. Closing this generator waits for the work under way.
    """
    with ThreadPoolExecutor(threads, thread_name_prefix="sed-trt-work") as pool:
        futures = prefetch((pool.submit(work, item) for item in items), threads)
        try:
            for future in futures:
                yield future.result()
        finally:
            futures.close()
            pool.shutdown(cancel_futures=True)


def prefetch(items: Generator[Item, None, None], depth: int) -> Generator[Item, None, None]:
    """Yield `items` in order, while a thread advances them by up to `depth` items more.

    An exception in `items` is raised here. Closing this generator stops the thread after the item it is at,
    and closes `items` in it.
    """
    ready: queue.Queue[Item | _End] = queue.Queue(depth)
    stop = threading.Event()

    def advance() -> None:
        end = _End()
        try:
            for item in items:
                ready.put(item)
                if stop.is_set():
                    break
            items.close()
        except BaseException as error:
            end = _End(error)
        ready.put(end)

    thread = threading.Thread(target=advance, daemon=True)
    thread.start()
    try:
        yield from _until_end(ready)
    finally:
        stop.set()
        while thread.is_alive():
            # The thread may be waiting for room in the queue.
            try:
                ready.get(timeout=0.02)
            except queue.Empty:
                continue


class _End:
    """The last entry of a queue: the items came to their end, or raised an error."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error


def _until_end(ready: "queue.Queue[Item | _End]") -> Iterator[Item]:
    while True:
        item = ready.get()
        if isinstance(item, _End):
            if item.error is not None:
                raise item.error
            return
        yield item
