"""A GPU in numpy, which puts work off as long as a real one may.

Nothing that is put into the stream happens before somebody waits for it, so that memory which is given out
again too early, or read too early, shows as a wrong result.
"""

import threading
from bisect import bisect_right
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sed_trt.engines.device.protocol import DeviceMemoryError

GARBAGE = 0xCD


class FakeEvent:
    """A mark in a `FakeDevice`'s stream."""

    def __init__(self, device: "FakeDevice", position: int) -> None:
        self.device = device
        self.position = position

    def is_done(self) -> bool:
        return self.device.done >= self.position

    def wait(self) -> None:
        self.device.waits += not self.is_done()
        self.device.catch_up(self.position)


@dataclass
class FakeGraph:
    """What was put into the stream while it was captured: `notes` are done at a launch, `work` later."""

    device: "FakeDevice"
    notes: list[Callable[[], None]] = field(default_factory=list)
    work: list[Callable[[], None]] = field(default_factory=list)

    def launch(self) -> None:
        self.device.launches += 1
        for note in self.notes:
            note()
        for each in self.work:
            self.device.enqueue(each)


class FakeDevice:
    """Memory by address, and a log of what was put into the stream; `waits` counts those that took time.

    The log holds ("run", stage, profile, names of inputs that were uploaded for it) and ("down", name).
    """

    stream = 7

    def __init__(self, limit: int = 2**40) -> None:
        self.limit = limit
        self.log: list[tuple[Any, ...]] = []
        self.memory: dict[int, np.ndarray] = {}
        self.allocations = 0
        self.host_allocations = 0
        self.copies = 0
        self.waits = 0
        self.launches = 0
        self.graphs: list[FakeGraph] = []
        self.fresh: set[int] = set()
        self.names: dict[int, str] = {}
        self.done = 0
        self.closed = False
        self._queue: list[Callable[[], None]] = []
        self._capturing: FakeGraph | None = None
        self._lock = threading.RLock()
        self._active = threading.local()
        self._next = 4096

    @contextmanager
    def active(self) -> Iterator[None]:
        assert not getattr(self._active, "on", False), "pushed twice"
        self._active.on = True
        try:
            yield
        finally:
            self._active.on = False

    def allocate(self, size: int) -> int:
        self.check_active()
        assert self._capturing is None, "allocated within a capture"
        if self.used() + size > self.limit:
            raise DeviceMemoryError("out of memory")
        self.allocations += 1
        pointer, self._next = self._next, self._next + -(-size // 256) * 256 + 4096
        self.memory[pointer] = np.full(size, GARBAGE, dtype=np.uint8)
        return pointer

    def free(self, pointer: int) -> None:
        self.check_active()
        self.catch_up()
        del self.memory[pointer]

    def used(self) -> int:
        return sum(array.size for array in self.memory.values())

    def free_bytes(self) -> int:
        self.check_active()
        return self.limit - self.used()

    def allocate_host(self, size: int) -> np.ndarray:
        self.check_active()
        self.host_allocations += 1
        return np.full(size, GARBAGE, dtype=np.uint8)

    def upload(self, pointer: int, source: np.ndarray) -> None:
        self.fresh.add(pointer)
        self.enqueue(lambda: self._write(pointer, source))

    def download(self, target: np.ndarray, pointer: int) -> None:
        self.log.append(("down", self.names.get(pointer, "a stack")))
        self.enqueue(lambda: np.copyto(target, self.view(pointer, target.size)))

    def copy(self, target: int, source: int, size: int) -> None:
        self.copies += 1
        self.enqueue(lambda: self._write(target, self.view(source, size)))

    def record(self) -> FakeEvent:
        self.check_active()
        with self._lock:
            return FakeEvent(self, self.done + len(self._queue))

    def capture(self, enqueue: Callable[[], None]) -> FakeGraph:
        self.check_active()
        graph = self._capturing = FakeGraph(self)
        try:
            enqueue()
        finally:
            self._capturing = None
        self.graphs.append(graph)
        return graph

    def close(self) -> None:
        self.closed = True

    @property
    def is_capturing(self) -> bool:
        return self._capturing is not None

    def note(self, action: Callable[[], None]) -> None:
        """Do what belongs to a piece of work on the host: now, or whenever a graph of it is launched."""
        if self._capturing is None:
            action()
        else:
            self._capturing.notes.append(action)

    def enqueue(self, work: Callable[[], None]) -> None:
        self.check_active()
        if self._capturing is not None:
            self._capturing.work.append(work)
            return
        with self._lock:
            self._queue.append(work)

    def catch_up(self, position: int | None = None) -> None:
        """Do the work up to a position, or all of it."""
        with self._lock:
            while self._queue and (position is None or self.done < position):
                self._queue.pop(0)()
                self.done += 1

    def view(self, pointer: int, size: int) -> np.ndarray:
        """The memory from an address on."""
        bases = sorted(self.memory)
        base = bases[bisect_right(bases, pointer) - 1]
        part = self.memory[base][pointer - base : pointer - base + size]
        assert part.size == size, "outside of an allocation"
        return part

    def _write(self, pointer: int, source: np.ndarray) -> None:
        np.copyto(self.view(pointer, source.size), source)

    def check_active(self) -> None:
        assert getattr(self._active, "on", False), "the device is not current in this thread"
