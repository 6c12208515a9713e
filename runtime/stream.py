"""Many pictures at once: read, encoded, decoded and labelled in threads that run ahead of the consumer."""

import os
import queue
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from ..engines.engine import Engines
from ..errors import InputError
from .images import Source
from .pipeline import EncodedPicture, Prepared, Refined, encode, label, prepare, refine
from .rejection import Rejection
from .result import Result
from .vocabulary import Categories

Item = TypeVar("Item")
Made = TypeVar("Made")

# More would wait for memory and disk rather than for a core.
_MOST_THREADS = 8


def pool_size() -> int:
    """Threads for work that needs a core each, such as reading or writing pictures: at least 2."""
    return min(_MOST_THREADS, max(2, os.cpu_count() or 1))


def in_threads(
    work: Callable[[Item], Made], items: Iterable[Item], threads: int
) -> Generator[Made, None, None]:
    """Yield `work(item)` for each item, in order, made in so many threads.

    Each is yielded once it is made, whether or not the next item has come; a thread of its own advances
    `items`. About twice as many items as threads are in work or wait. An exception in `work` or `items` is
    raised here, after what came before it. Closing this generator waits for what is in work.
    """
    with ThreadPoolExecutor(threads, thread_name_prefix="sed-trt-work") as pool:
        futures = run_ahead((pool.submit(work, item) for item in items), threads)
        try:
            for future in futures:
                yield future.result()
        finally:
            futures.close()
            pool.shutdown(cancel_futures=True)


class _End:
    """The last thing in the queue: the iterator ended, by itself or with an error."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error


def run_ahead(items: Generator[Item, None, None], depth: int) -> Generator[Item, None, None]:
    """Yield what `items` yields, in order, while a thread makes up to `depth` further items.

    An exception in `items` is raised here. Closing this generator stops the thread after the item it is
    making, and closes `items` in it.
    """
    line: queue.Queue[Item | _End] = queue.Queue(depth)
    stop = threading.Event()
    thread = threading.Thread(target=_work, args=(items, line, stop), daemon=True)
    thread.start()
    try:
        yield from _take(line)
    finally:
        stop.set()
        while thread.is_alive():
            # The thread may be waiting for room in the queue.
            try:
                line.get(timeout=0.02)
            except queue.Empty:
                continue


def _work(
    items: Generator[Item, None, None], line: "queue.Queue[Item | _End]", stop: threading.Event
) -> None:
    end = _End()
    try:
        for item in items:
            line.put(item)
            if stop.is_set():
                break
        items.close()
    except BaseException as error:
        end = _End(error)
    line.put(end)


def _take(line: "queue.Queue[Item | _End]") -> Iterator[Item]:
    while True:
        item = line.get()
        if isinstance(item, _End):
            if item.error is not None:
                raise item.error
            return
        yield item


# One is enough for steps of even pace; the second evens out pictures of different sizes.
_AHEAD = 2


@dataclass(frozen=True, eq=False)
class StreamItem:
    """One picture of a stream as it was given, with its result or with why there is none."""

    source: Source
    result: Result | None
    error: str | None = None


Step = TypeVar("Step")
Next = TypeVar("Next")
# A picture on its way: what was made of it so far, or the message of the error that ended it.
_Moving = tuple[Source, Step | str]


def stream_results(
    engines: Engines,
    images: Iterable[Source],
    vocabulary: Categories,
    rejection: Rejection,
    short_side: int | None,
    batch: int,
) -> Generator[StreamItem, None, None]:
    """Segment pictures in order; see `Segmenter.stream`.

    At most a few batches are in memory at a time, whatever the number of pictures.
    """

    def load(source: Source) -> _Moving[Prepared]:
        try:
            return source, prepare(engines, source, short_side)
        except InputError as error:
            return source, str(error)

    # The second batch is read while the encoder has the first; a whole batch leaves the encoder at once.
    loaded = run_ahead(in_threads(load, images, pool_size()), batch)
    encoded = run_ahead(_encode_batches(engines, loaded, batch), batch)
    refined = _decode(engines, encoded, vocabulary, rejection)
    results = run_ahead(_each(lambda item: label(engines, item, vocabulary.names), refined), _AHEAD)
    try:
        for source, outcome in results:
            yield (
                StreamItem(source, None, outcome) if isinstance(outcome, str) else StreamItem(source, outcome)
            )
    finally:
        results.close()


def _encode_batches(
    engines: Engines, loaded: Generator[_Moving[Prepared], None, None], batch: int
) -> Generator[_Moving[EncodedPicture], None, None]:
    waiting: list[_Moving[Prepared]] = []
    try:
        for item in loaded:
            waiting.append(item)
            if len(waiting) == batch:
                yield from _encode(engines, waiting)
                waiting = []
        yield from _encode(engines, waiting)
    finally:
        loaded.close()


def _encode(engines: Engines, loaded: list[_Moving[Prepared]]) -> Iterator[_Moving[EncodedPicture]]:
    good = [outcome for _, outcome in loaded if isinstance(outcome, Prepared)]
    encoded = iter(encode(engines, good) if good else [])
    for source, outcome in loaded:
        yield source, outcome if isinstance(outcome, str) else next(encoded)


def _decode(
    engines: Engines,
    encoded: Generator[_Moving[EncodedPicture], None, None],
    vocabulary: Categories,
    rejection: Rejection,
) -> Generator[_Moving[Refined], None, None]:
    """Decode as many pictures at a time as suits the backend."""

    def decode(item: EncodedPicture) -> Refined:
        return refine(item, vocabulary, rejection)

    try:
        yield from in_threads(_passing(decode), encoded, engines.decodes_at_once)
    finally:
        encoded.close()


def _each(
    work: Callable[[Step], Next], items: Generator[_Moving[Step], None, None]
) -> Generator[_Moving[Next], None, None]:
    """Bring every picture one step further."""
    try:
        yield from map(_passing(work), items)
    finally:
        items.close()


def _passing(work: Callable[[Step], Next]) -> Callable[[_Moving[Step]], _Moving[Next]]:
    """`work` for pictures on their way: an error passes through."""

    def step(item: _Moving[Step]) -> _Moving[Next]:
        source, outcome = item
        return source, outcome if isinstance(outcome, str) else work(outcome)

    return step
