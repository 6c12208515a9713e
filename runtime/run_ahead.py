"""Let an iterator work in a thread of its own, a bounded number of items ahead of its consumer."""

import queue
import threading
from collections.abc import Generator, Iterator
from typing import TypeVar

Item = TypeVar("Item")


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
