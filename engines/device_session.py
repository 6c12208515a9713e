"""All work on one device: arrays up, arrays down, memory between, in one order."""

import math
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import numpy as np

from .device_array import ITEM_BYTES, DeviceArray
from .device_errors import out_of_memory, out_of_pinned_memory
from .device_pool import Buffer, DevicePool
from .device_protocol import Device, DeviceMemoryError, Event
from .device_staging import StagingPool

# What TensorRT expects of an address; parts of an array may start elsewhere.
ALIGNMENT = 256


@dataclass(frozen=True)
class Download:
    """An array on its way to the host, there once the `Work` it was put into has been passed by `event`."""

    staging: np.ndarray
    dtype: str
    shape: tuple[int, ...]


class Work:
    """What one holder of the session's lock puts into the stream; made by `DeviceSession.work`."""

    def __init__(self, device: Device, pool: DevicePool, staging: StagingPool, doing: str) -> None:
        self._device = device
        self._pool = pool
        self._staging = staging
        self._doing = doing
        self._uploads: list[np.ndarray] = []
        self._event: Event | None = None

    def scratch(self, size: int) -> Buffer:
        """Device memory without content; raises InputError when there is too little."""
        try:
            return self._pool.take(size)
        except DeviceMemoryError as error:
            raise out_of_memory(self._doing, size, self._device.free_bytes()) from error

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
        staging = self._stage(array.nbytes)
        self._uploads.append(staging)
        part = staging[: array.nbytes]
        part.view(array.dtype).reshape(array.shape)[...] = array
        self._device.upload(target.pointer, part)
        return target

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
        """Start to bring an array to the host; `DeviceSession.received` has it.

        Raises:
            InputError: the host has too little memory.
        """
        staging = self._stage(array.nbytes)
        self._device.download(staging[: array.nbytes], array.pointer)
        return Download(staging, array.dtype, array.shape)

    def finish(self) -> None:
        """Mark the end of the work."""
        self._event = self._device.record()
        for staging in self._uploads:
            self._staging.give_back_after(staging, self._event)

    @property
    def event(self) -> Event:
        """The mark at the end, once the block of `DeviceSession.work` is over."""
        assert self._event is not None
        return self._event

    def _stage(self, size: int) -> np.ndarray:
        try:
            return self._staging.take(size)
        except DeviceMemoryError as error:
            raise out_of_pinned_memory(self._doing, size) from error


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
    def work(self, doing: str) -> Iterator[Work]:
        """The device to this thread alone, to put work into its stream; `doing` stands in error messages."""
        with self._lock, self.device.active():
            work = Work(self.device, self._pool, self._staging, doing)
            try:
                yield work
            except BaseException:
                # A device that failed may take no mark either; what went wrong first is what matters.
                with suppress(Exception):
                    work.finish()
                raise
            work.finish()

    def received(self, work: Work, download: Download) -> np.ndarray:
        """The array that `download` was to bring; waits for `work` without keeping other threads."""
        with self.device.active():
            work.event.wait()
        count = math.prod(download.shape) * ITEM_BYTES[download.dtype]
        array = download.staging[:count].view(download.dtype).reshape(download.shape).copy()
        self._staging.give_back(download.staging)
        return array

    def upload(self, array: np.ndarray) -> DeviceArray:
        """A copy of a C-contiguous array on the device."""
        with self.work("text embeddings") as work:
            return work.upload(array)

    def stack(self, arrays: Sequence[DeviceArray]) -> DeviceArray:
        """The arrays one after the other along their first axis; one alone is given back as it is."""
        if len(arrays) == 1:
            return arrays[0]
        with self.work("a batch of pictures") as work:
            return work.stack(arrays)

    def close(self) -> None:
        """Free all memory once the work is done; arrays of this session are void from then on."""
        with self.work("the end") as work:
            pass
        with self._lock, self.device.active():
            work.event.wait()
            self._pool.close()
            self._staging.close()
        del work
        self.device.close()
