"""The GPU through pycuda."""

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import numpy as np

from .gpu import Gpu, check_index, cuda_version, full_error, open_error, package_error, start_error
from .protocol import CaptureError, DeviceMemoryError, Graph

# CU_STREAM_NON_BLOCKING, which pycuda has no name for: work in the default stream is not waited for.
_NON_BLOCKING = 1


def start() -> ModuleType:
    """The module pycuda.driver, initialised; no context is made.

    Raises:
        InputError: pycuda is broken, there is no NVIDIA driver or one too old, or CUDA does not start.
    """
    try:
        import pycuda.driver as cuda
    except ImportError as error:
        raise package_error("pycuda", str(error)) from error
    try:
        cuda.init()
    except cuda.Error as error:
        raise start_error(str(error)) from error
    return cuda


def find_gpu(index: int) -> Gpu:
    """The GPU with this number; raises InputError as `start` does, or when it is not there."""
    cuda = start()
    check_index(index, cuda.Device.count())
    device = cuda.Device(index)
    return Gpu(
        name=device.name(),
        capability=tuple(device.compute_capability()),
        driver=cuda_version(cuda.get_driver_version()),
        memory=device.total_memory(),
    )


class PycudaEvent:
    """A mark in the stream; its CUDA event is used again for a later mark."""

    def __init__(self, event: Any, spare: deque[Any]) -> None:
        self._event = event
        self._spare = spare

    def is_done(self) -> bool:
        """Whether all work before the mark is done."""
        return bool(self._event.query())

    def wait(self) -> None:
        """Block this thread until it is; others run on."""
        self._event.synchronize()

    def __del__(self) -> None:
        # pycuda can destroy an event only where its context is current, which may not be here.
        self._spare.append(self._event)


class PycudaDevice:
    """One GPU: its primary context, which other CUDA libraries of this process share, and one stream."""

    def __init__(self, index: int = 0) -> None:
        """Open the GPU.

        Raises:
            InputError: there is none, its driver does not start, or its memory is too full for that.
        """
        self._cuda = start()
        check_index(index, self._cuda.Device.count())
        # pycuda frees memory and destroys events only through the objects it gave.
        self._allocations: dict[int, Any] = {}
        self._spare_events: deque[Any] = deque()
        try:
            self._context = self._cuda.Device(index).retain_primary_context()
            with self.active():
                self._stream = self._cuda.Stream(_NON_BLOCKING)
        except self._cuda.MemoryError as error:
            raise full_error(str(error)) from error
        except self._cuda.Error as error:
            raise open_error(str(error)) from error

    @property
    def stream(self) -> int:
        """Handle of the stream."""
        return int(self._stream.handle)

    @contextmanager
    def active(self) -> Iterator[None]:
        """Make the context current in this thread for the length of a block."""
        self._context.push()
        try:
            yield
        finally:
            # pycuda aborts the process when a thread ends with a context that is still current.
            self._cuda.Context.pop()

    def allocate(self, size: int) -> int:
        """Address of `size` new bytes; raises DeviceMemoryError."""
        try:
            allocation = self._cuda.mem_alloc(size)
        except self._cuda.MemoryError as error:
            raise DeviceMemoryError(str(error)) from error
        pointer = int(allocation)
        self._allocations[pointer] = allocation
        return pointer

    def free(self, pointer: int) -> None:
        """Give memory back; CUDA waits for the work that uses it."""
        self._allocations.pop(pointer).free()

    def free_bytes(self) -> int:
        """Bytes that are free on the device at this moment."""
        return int(self._cuda.mem_get_info()[0])

    def allocate_host(self, size: int) -> np.ndarray:
        """New pinned host memory, uint8 (size,); raises DeviceMemoryError."""
        try:
            memory: np.ndarray = self._cuda.pagelocked_empty(size, np.uint8)
        except self._cuda.MemoryError as error:
            raise DeviceMemoryError(str(error)) from error
        return memory

    def upload(self, pointer: int, source: np.ndarray) -> None:
        """Copy from pinned host memory, in the stream."""
        self._cuda.memcpy_htod_async(pointer, source, self._stream)

    def download(self, target: np.ndarray, pointer: int) -> None:
        """Copy to pinned host memory, in the stream."""
        self._cuda.memcpy_dtoh_async(target, pointer, self._stream)

    def copy(self, target: int, source: int, size: int) -> None:
        """Copy on the device, in the stream."""
        self._cuda.memcpy_dtod_async(target, source, size, self._stream)

    def record(self) -> PycudaEvent:
        """Put a mark into the stream."""
        try:
            event = self._spare_events.popleft()
        except IndexError:
            event = self._cuda.Event(self._cuda.event_flags.DISABLE_TIMING)
        # First, so that the event is kept when it cannot be recorded.
        mark = PycudaEvent(event, self._spare_events)
        event.record(self._stream)
        return mark

    def capture(self, enqueue: Callable[[], None]) -> Graph:
        """Raise CaptureError: pycuda knows no CUDA graphs."""
        raise CaptureError("pycuda has no CUDA graphs, cuda-bindings has")

    def close(self) -> None:
        """Destroy the stream and the events: no work may be under way, nor come."""
        with self.active():
            self._spare_events.clear()
            del self._stream
