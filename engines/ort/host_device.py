"""The CPU in the place of a GPU, so that the code for one runs where there is none."""

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np

from ..device.protocol import CaptureError, Graph


class HostDevice:
    """The CPU in the place of a GPU: whatever is put into its stream is done at once."""

    stream = 0

    def __init__(self) -> None:
        self._memory: dict[int, np.ndarray] = {}

    @contextmanager
    def active(self) -> Iterator[None]:
        """Nothing."""
        yield

    def allocate(self, size: int) -> int:
        """Address of `size` new bytes, aligned as a GPU's are."""
        memory = np.empty(size + 255, np.uint8)
        pointer = -(-memory.ctypes.data // 256) * 256
        self._memory[pointer] = memory
        return pointer

    def free(self, pointer: int) -> None:
        """Give memory back."""
        del self._memory[pointer]

    def free_bytes(self) -> int:
        """No number is known."""
        return 0

    def allocate_host(self, size: int) -> np.ndarray:
        """New memory, uint8 (size,)."""
        return np.empty(size, np.uint8)

    def upload(self, pointer: int, source: np.ndarray) -> None:
        """Copy at once."""
        ctypes.memmove(pointer, source.ctypes.data, source.nbytes)

    def download(self, target: np.ndarray, pointer: int) -> None:
        """Copy at once."""
        ctypes.memmove(target.ctypes.data, pointer, target.nbytes)

    def copy(self, target: int, source: int, size: int) -> None:
        """Copy at once."""
        ctypes.memmove(target, source, size)

    def record(self) -> "HostEvent":
        """A mark, before which all is done."""
        return HostEvent()

    def capture(self, enqueue: Callable[[], None]) -> Graph:
        """Raise CaptureError: ONNX Runtime records its work by itself."""
        raise CaptureError("ONNX Runtime records its work by itself")

    def close(self) -> None:
        """Nothing is left to be closed."""


class HostEvent:
    """A mark in the work of a `HostDevice`."""

    def is_done(self) -> bool:
        """All work is done when it is put into the stream."""
        return True

    def wait(self) -> None:
        """Return at once."""
