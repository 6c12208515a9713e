"""Device memory, taken again and again: allocating it stops the device, so it is done rarely."""

import weakref
from bisect import insort
from collections import deque
from operator import attrgetter

from .device_protocol import Device, DeviceMemoryError

# Smaller requests share this size, so that indices and vote tables of all lengths share buffers.
SMALLEST = 64 * 1024
# A buffer up to so many times as large as asked for is taken rather than a new one allocated.
MAX_EXCESS = 4


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
        wanted = _rounded(size)
        buffer = self._take_idle(wanted) or self._allocate(wanted)
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
        # The allocation that failed may also have ended cycles that held buffers.
        self._collect()
        # Freeing waits for the work under way, so that nothing still uses these.
        for buffer in self._idle:
            self._device.free(buffer.pointer)
            del self._sizes[buffer.pointer]
        self._idle.clear()


def _rounded(size: int) -> int:
    """The size class of `size`: an eighth of a power of two apart, so that near sizes share buffers."""
    step = max(SMALLEST, 1 << max(0, size.bit_length() - 4))
    return -(-max(size, 1) // step) * step
