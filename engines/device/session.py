"""The memory of one device, and uploads, downloads and other work in its stream."""

import math
import threading
import weakref
from bisect import insort
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from operator import attrgetter

import numpy as np

from ...errors import InputError
from ..engine import ITEM_BYTES, DeviceArray, Value
from .protocol import (
    CaptureError,
    Device,
    DeviceMemoryError,
    Event,
    Graph,
    out_of_memory,
    out_of_pinned_memory,
)

# Smaller requests share this size, so that indices and vote tables of all lengths share buffers.
MIN_BUFFER = 64 * 1024
# An idle buffer is used again for a request down to this fraction of its size; else a new one is allocated.
MAX_EXCESS = 4
# Bytes of the smallest pinned host buffer.
MIN_STAGING = 4096
# CUDA graphs of one stage, each of which keeps memory. Further shapes run without one.
MAX_GRAPHS = 16
# What TensorRT expects of an address; parts of an array may start elsewhere.
ALIGNMENT = 256


class Buffer:
    """A piece of device memory in use; it goes back to its pool when the last reference to it is gone."""

    def __init__(self, pointer: int, size: int) -> None:
        self.pointer = pointer
        self.size = size


class DevicePool:
    """Buffers of one device that is used through one stream.

    A buffer may be taken again as soon as nobody refers to it, though work that uses it is still to be done:
    all work goes through one stream, so whatever its next owner does with it comes after.
    """

    def __init__(self, device: Device) -> None:
        self._device = device
        self._sizes: dict[int, int] = {}
        self._idle: list[Buffer] = []
        # Buffers end in any thread and at any moment, even while this thread is inside `take`; appending to
        # a deque needs no lock.
        self._returned: deque[tuple[int, int]] = deque()

    @property
    def allocated(self) -> int:
        """Bytes of the device that the pool holds, in use or not."""
        return sum(self._sizes.values())

    def take(self, size: int) -> Buffer:
        """A buffer of at least `size` bytes; the caller holds the lock that orders all work on the device.

        Raises:
            DeviceMemoryError: there is no room for it, even after all idle buffers were freed.
        """
        self._collect()
        rounded = _rounded(size)
        buffer = self._take_idle(rounded) or self._allocate(rounded)
        weakref.finalize(buffer, self._returned.append, (buffer.pointer, buffer.size)).atexit = False
        return buffer

    def close(self) -> None:
        """Free everything, buffers in use included: no work may be under way."""
        self._idle.clear()
        for pointer in self._sizes:
            self._device.free(pointer)
        self._sizes.clear()

    def _collect(self) -> None:
        while self._returned:
            pointer, size = self._returned.popleft()
            insort(self._idle, Buffer(pointer, size), key=attrgetter("size"))

    def _take_idle(self, size: int) -> Buffer | None:
        for index, buffer in enumerate(self._idle):
            if size <= buffer.size <= size * MAX_EXCESS:
                return self._idle.pop(index)
        return None

    def _allocate(self, size: int) -> Buffer:
        try:
            pointer = self._device.allocate(size)
        except DeviceMemoryError:
            self._free_idle()
            pointer = self._device.allocate(size)
        self._sizes[pointer] = size
        return Buffer(pointer, size)

    def _free_idle(self) -> None:
        # The allocation that failed may also have collected cycles that referred to buffers.
        self._collect()
        # Freeing waits for the work under way, so that nothing still uses these.
        for buffer in self._idle:
            self._device.free(buffer.pointer)
            del self._sizes[buffer.pointer]
        self._idle.clear()


def _rounded(size: int) -> int:
    """The size class of `size`: an eighth of a power of two apart, so that near sizes share buffers."""
    step = max(MIN_BUFFER, 1 << max(0, size.bit_length() - 4))
    return -(-max(size, 1) // step) * step


class StagingPool:
    """Pinned host buffers, from which and to which a device copies by itself.

    `take` and `give_back_after` need the lock that orders all work on the device.
    """

    def __init__(self, device: Device) -> None:
        self._device = device
        self._idle: list[np.ndarray] = []
        self._busy: deque[tuple[np.ndarray, Event]] = deque()
        # Appending to a deque needs no lock.
        self._returned: deque[np.ndarray] = deque()

    def take(self, size: int) -> np.ndarray:
        """A buffer, uint8 of at least `size`, that no copy under way uses; raises DeviceMemoryError."""
        # Marks are passed in the order they were recorded.
        while self._busy and self._busy[0][1].is_done():
            self._idle.append(self._busy.popleft()[0])
        while self._returned:
            self._idle.append(self._returned.popleft())
        self._idle.sort(key=len)
        for index, buffer in enumerate(self._idle):
            if buffer.size >= size:
                return self._idle.pop(index)
        if self._idle:
            # Buffers grow to the largest size seen rather than become more.
            self._idle.pop()
        return self._device.allocate_host(1 << (max(size, MIN_STAGING) - 1).bit_length())

    def give_back(self, buffer: np.ndarray) -> None:
        """Return a buffer that no copy uses; any thread may do so without a lock."""
        self._returned.append(buffer)

    def give_back_after(self, buffer: np.ndarray, event: Event) -> None:
        """Return a buffer that a copy uses until `event`."""
        self._busy.append((buffer, event))

    def close(self) -> None:
        """Release everything: no work may be under way."""
        self._idle.clear()
        self._busy.clear()
        self._returned.clear()


@dataclass(frozen=True)
class Download:
    """An array on its way to the host; it is there when the event of its `Work` is done."""

    staging: np.ndarray
    dtype: str
    shape: tuple[int, ...]


class Work:
    """Puts work into the stream while its thread has the session's lock; made by `DeviceSession.work`."""

    def __init__(self, device: Device, pool: DevicePool, staging: StagingPool, purpose: str) -> None:
        """`purpose` is named in errors."""
        self._device = device
        self._pool = pool
        self._staging = staging
        self._purpose = purpose
        self._uploads: list[np.ndarray] = []
        self._event: Event | None = None
        self._is_done = False

    def scratch(self, size: int) -> Buffer:
        """Device memory without content; raises InputError when there is too little."""
        try:
            return self._pool.take(size)
        except DeviceMemoryError as error:
            raise out_of_memory(self._purpose, size, self._device.free_bytes()) from error

    def empty(self, dtype: str, shape: tuple[int, ...]) -> DeviceArray:
        """A new array without content; raises InputError when there is too little memory."""
        buffer = self.scratch(math.prod(shape) * ITEM_BYTES[dtype])
        return DeviceArray(buffer, buffer.pointer, dtype, shape)

    def upload(self, array: np.ndarray) -> DeviceArray:
        """A copy of `array` on the device; `array` may change as soon as this returns.

        Raises:
            InputError: the device, or the host, has too little memory.
        """
        target = self.empty(array.dtype.name, array.shape)
        self.fill(target, array)
        return target

    def fill(self, target: DeviceArray, value: Value) -> None:
        """Copy a value of the same type and shape into an array that is there already.

        Raises:
            InputError: the host has too little memory.
        """
        if isinstance(value, DeviceArray):
            self._device.copy(target.pointer, value.pointer, value.nbytes)
            return
        staging = self._stage(value.nbytes)
        self._uploads.append(staging)
        part = staging[: value.nbytes]
        part.view(value.dtype).reshape(value.shape)[...] = value
        self._device.upload(target.pointer, part)

    def aligned(self, array: DeviceArray) -> DeviceArray:
        """`array`, or a copy of it at an address that is a multiple of `ALIGNMENT`."""
        return array if array.pointer % ALIGNMENT == 0 else self.stack([array])

    def stack(self, arrays: Sequence[DeviceArray]) -> DeviceArray:
        """The arrays one after the other along their first axis, copied on the device."""
        first = arrays[0]
        target = self.empty(first.dtype, (sum(map(len, arrays)), *first.shape[1:]))
        pointer = target.pointer
        for array in arrays:
            self._device.copy(pointer, array.pointer, array.nbytes)
            pointer += array.nbytes
        return target

    def download(self, array: DeviceArray) -> Download:
        """Start to copy an array to the host; `DeviceSession.received` gives it.

        Raises:
            InputError: the host has too little memory.
        """
        staging = self._stage(array.nbytes)
        self._device.download(staging[: array.nbytes], array.pointer)
        return Download(staging, array.dtype, array.shape)

    def capture(self, enqueue: Callable[[], None]) -> Graph:
        """Record what `enqueue` puts into the stream instead of doing it; raises InputError."""
        try:
            return self._device.capture(enqueue)
        except CaptureError as error:
            raise InputError(
                f"{self._purpose}: it cannot be captured as a CUDA graph ({error}); leave cuda_graphs out"
            ) from error

    def finish(self) -> None:
        """Mark the end of the work."""
        self._event = self._device.record()
        for staging in self._uploads:
            self._staging.give_back_after(staging, self._event)

    def wait(self) -> None:
        """Block this thread until the work is done, once the block of `DeviceSession.work` is over."""
        assert self._event is not None
        if not self._is_done:
            self._event.wait()
            self._is_done = True

    def _stage(self, size: int) -> np.ndarray:
        try:
            return self._staging.take(size)
        except DeviceMemoryError as error:
            raise out_of_pinned_memory(self._purpose, size) from error


class DeviceSession:
    """One device with its memory, shared by all stages of a bundle and all threads."""

    def __init__(self, device: Device) -> None:
        self.device = device
        self._pool = DevicePool(device)
        self._staging = StagingPool(device)
        # Threads take turns to put work into the stream: shapes and addresses are state of TensorRT's
        # contexts, and memory is given out anew in the order of the work. They wait for results at once.
        self._lock = threading.Lock()

    @contextmanager
    def work(self, purpose: str) -> Iterator[Work]:
        """The device for this thread alone, to put work into its stream; `purpose` is named in errors."""
        with self._lock, self.device.active():
            work = Work(self.device, self._pool, self._staging, purpose)
            try:
                yield work
            except BaseException:
                # A device that failed may take no mark either; what went wrong first is what matters.
                with suppress(Exception):
                    work.finish()
                raise
            work.finish()

    def received(self, work: Work, download: Download) -> np.ndarray:
        """The array of `download` on the host; waits for `work` without blocking other threads."""
        with self.device.active():
            work.wait()
        count = math.prod(download.shape) * ITEM_BYTES[download.dtype]
        array = download.staging[:count].view(download.dtype).reshape(download.shape).copy()
        self._staging.give_back(download.staging)
        return array

    def download(self, value: DeviceArray) -> Callable[[], np.ndarray]:
        """Start to copy an array to the host; the function that is returned waits for it.

        Raises:
            InputError: the host has too little memory.
        """
        with self.work("results") as work:
            download = work.download(value)
        return lambda: self.received(work, download)

    def upload(self, array: np.ndarray) -> DeviceArray:
        """A copy of a C-contiguous array on the device."""
        with self.work("values for the GPU") as work:
            return work.upload(array)

    def stack(self, arrays: Sequence[DeviceArray]) -> DeviceArray:
        """The arrays one after the other along their first axis; one alone is given back as it is."""
        if len(arrays) == 1:
            return arrays[0]
        with self.work("joining values") as work:
            return work.stack(arrays)

    def close(self) -> None:
        """Free all memory once the work is done; arrays of this session are void from then on."""
        with self.work("closing the device") as work:
            pass
        with self._lock, self.device.active():
            work.wait()
            self._pool.close()
            self._staging.close()
        del work
        self.device.close()
