"""Lanes: threads that work off a queue, in batches, without the work that nobody waits for any longer."""

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Item = TypeVar("Item")
Output = TypeVar("Output")

# An engine that hangs must not keep the process from ending.
_JOIN_S = 10


@dataclass(eq=False)
class _Entry(Generic[Item, Output]):
    item: Item
    future: "Future[Output]" = field(default_factory=Future)


class Lane(Generic[Item, Output]):
    """Threads that take entries from one queue, in order of arrival.

    A future that is cancelled before its work starts takes its entry out of the queue at once.
    """

    def __init__(
        self,
        name: str,
        work: Callable[[Sequence[Item]], Sequence[Output]],
        threads: int = 1,
        batch: int = 1,
        wait_s: float = 0,
    ) -> None:
        """Start the threads.

        Args:
            name: of the threads.
            work: from up to `batch` items to as many outputs. When it raises for several, it is called with
                each of them alone, so that one bad item spoils no other.
            threads: that work at a time.
            batch: items that are given together.
            wait_s: seconds that the first item of a batch waits for more.
        """
        self._work = work
        self._batch = batch
        self._wait_s = wait_s
        self._waiting: deque[_Entry[Item, Output]] = deque()
        self._condition = threading.Condition()
        self._closed = False
        # When the work that a thread does at the moment began, by the thread's number.
        self._started: dict[int, float] = {}
        self._threads = [
            threading.Thread(target=self._run, args=(number,), name=f"sed-trt-{name}-{number}", daemon=True)
            for number in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, item: Item) -> "Future[Output]":
        """Put an item at the end of the queue.

        Raises:
            RuntimeError: the lane is closed.
        """
        entry: _Entry[Item, Output] = _Entry(item)
        with self._condition:
            if self._closed:
                raise RuntimeError("the lane is closed")
            self._waiting.append(entry)
            self._condition.notify()
        entry.future.add_done_callback(lambda future: self._drop(entry) if future.cancelled() else None)
        return entry.future

    async def run(self, item: Item) -> Output:
        """Put an item at the end of the queue and wait for its output; cancelling takes it out again."""
        return await asyncio.wrap_future(self.submit(item))

    def count_waiting(self) -> int:
        """Items in the queue."""
        return len(self._waiting)

    @property
    def longest_run_s(self) -> float:
        """Seconds that the longest of the work under way has taken so far."""
        now = time.monotonic()
        return max((now - start for start in list(self._started.values())), default=0.0)

    def close(self) -> None:
        """Cancel what waits and end the threads after the work under way, waiting 10 s for each at most."""
        with self._condition:
            self._closed = True
            left = list(self._waiting)
            self._condition.notify_all()
        for entry in left:
            entry.future.cancel()
        for thread in self._threads:
            thread.join(_JOIN_S)

    def _drop(self, entry: _Entry[Item, Output]) -> None:
        with self._condition:
            if entry in self._waiting:
                self._waiting.remove(entry)

    def _run(self, number: int) -> None:
        while entries := self._next():
            # Of entries that were cancelled after they were taken nothing is done.
            active = [entry for entry in entries if entry.future.set_running_or_notify_cancel()]
            self._started[number] = time.monotonic()
            self._complete(active)
            del self._started[number]
            # An idle thread must keep no image alive.
            del entries, active

    def _complete(self, entries: list[_Entry[Item, Output]]) -> None:
        if not entries:
            return
        try:
            outputs = self._work([entry.item for entry in entries])
        except BaseException as error:
            if len(entries) > 1:
                for entry in entries:
                    self._complete([entry])
            else:
                entries[0].future.set_exception(error)
            return
        for entry, output in zip(entries, outputs, strict=True):
            entry.future.set_result(output)

    def _next(self) -> list[_Entry[Item, Output]]:
        """The entries of the next batch; none when the lane is closed."""
        with self._condition:
            while True:
                self._condition.wait_for(lambda: self._waiting or self._closed)
                if self._closed:
                    return []
                if self._batch > 1 and self._wait_s > 0:
                    self._condition.wait_for(
                        lambda: len(self._waiting) >= self._batch or self._closed, self._wait_s
                    )
                # Meanwhile another thread may have taken them, or their clients gone.
                if self._waiting and not self._closed:
                    count = min(self._batch, len(self._waiting))
                    return [self._waiting.popleft() for _ in range(count)]
