"""The part of pycuda.driver that the package uses, with names and behaviour as in pycuda 2026.1."""

import sys
import threading
from collections.abc import Mapping
from types import ModuleType
from typing import Any

import numpy as np

FULL = "out of memory"


def fake_pycuda(
    driver: int = 13000,
    devices: int = 1,
    start_error: str | None = None,
    failures: Mapping[str, str] | None = None,
) -> ModuleType:
    """A module `pycuda.driver`; its `calls` lists the calls, and `done` says whether events are.

    `failures` has the reasons for which "context", "stream", "event" (recording one), "pinned" memory or
    "query" (of an event) fails; `FULL` is pycuda's MemoryError.
    """
    failing = dict(failures or {})
    cuda: Any = ModuleType("pycuda.driver")
    cuda.calls = []
    cuda.done = True
    stacks = threading.local()

    class Error(Exception):
        pass

    class MemoryError(Error):
        pass

    def fail(what: str) -> None:
        if what in failing:
            kind = MemoryError if failing[what] == FULL else Error
            raise kind(f"{what} failed: {failing[what]}")

    def check() -> None:
        assert getattr(stacks, "contexts", []), "no currently active context?"

    class Context:
        def push(self) -> None:
            stacks.contexts = [*getattr(stacks, "contexts", []), self]

        @staticmethod
        def pop() -> None:
            stacks.contexts.pop()

    class Device:
        def __init__(self, index: int) -> None:
            self.index = index

        @staticmethod
        def count() -> int:
            return devices

        def name(self) -> str:
            return f"Fake {self.index}"

        def compute_capability(self) -> tuple[int, int]:
            return (8, 6)

        def total_memory(self) -> int:
            return 48 * 2**30

        def retain_primary_context(self) -> Context:
            fail("context")
            return Context()

    class Stream:
        handle = 99

        def __init__(self, flags: int = 0) -> None:
            check()
            cuda.calls.append(("stream", flags))
            fail("stream")

    class Event:
        def __init__(self, flags: int) -> None:
            check()
            cuda.calls.append(("event", flags))

        def record(self, stream: Stream) -> None:
            assert isinstance(stream, Stream)
            fail("event")

        def query(self) -> bool:
            fail("query")
            return bool(cuda.done)

        def synchronize(self) -> None:
            check()

    class Allocation:
        def __init__(self, size: int) -> None:
            self.size = size

        def __int__(self) -> int:
            return 4096 * self.size

        def free(self) -> None:
            check()
            cuda.calls.append(("free", self.size))

    def init() -> None:
        if start_error is not None:
            raise Error(start_error)

    def mem_alloc(size: int) -> Allocation:
        check()
        if size > 1000:
            raise MemoryError("cuMemAlloc failed: out of memory")
        return Allocation(size)

    def pagelocked_empty(size: int, dtype: Any) -> np.ndarray:
        check()
        fail("pinned")
        return np.empty(size, dtype)

    def copy(name: str) -> Any:
        def copied(*arguments: Any) -> None:
            check()
            assert isinstance(arguments[-1], Stream)
            cuda.calls.append((name, *arguments[:-1]))

        return copied

    cuda.Error, cuda.MemoryError = Error, MemoryError
    cuda.Context, cuda.Device, cuda.Stream, cuda.Event = Context, Device, Stream, Event
    cuda.event_flags = type("event_flags", (), {"DISABLE_TIMING": 2})
    cuda.init = init
    cuda.get_driver_version = lambda: driver
    cuda.mem_alloc = mem_alloc
    cuda.mem_get_info = lambda: (600, 1000)
    cuda.pagelocked_empty = pagelocked_empty
    cuda.failures = failing
    for name in ("memcpy_htod_async", "memcpy_dtoh_async", "memcpy_dtod_async"):
        setattr(cuda, name, copy(name))
    cuda.depth = lambda: len(getattr(stacks, "contexts", []))
    return cuda


def install(monkeypatch: Any, cuda: ModuleType) -> None:
    """Let `import pycuda.driver` find `cuda`, on a machine without cuda-bindings."""
    package: Any = ModuleType("pycuda")
    package.driver = cuda
    monkeypatch.setitem(sys.modules, "pycuda", package)
    monkeypatch.setitem(sys.modules, "pycuda.driver", cuda)
    monkeypatch.setitem(sys.modules, "cuda.bindings", None)
