"""Let threads work a bounded number of items ahead of whoever consumes what they make."""

import os
import queue
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

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
