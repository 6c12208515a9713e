"""Host memory on the way to and from a device, taken again once its copy is done."""

from collections import deque

import numpy as np

from .device_protocol import Device, Event

SMALLEST = 4096


class StagingPool:
    """Pinned host buffers. `take` and `give_back_after` need the lock that orders all work on the device."""

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
        return self._device.allocate_host(1 << (max(size, SMALLEST) - 1).bit_length())

    def give_back(self, buffer: np.ndarray) -> None:
        """Return a buffer that no copy uses; any thread may do so without a lock."""
        self._returned.append(buffer)

    def give_back_after(self, buffer: np.ndarray, event: Event) -> None:
        """Return a buffer that a copy uses until `event`."""
        self._busy.append((buffer, event))

    def close(self) -> None:
        """Let go of everything: no work may be under way."""
        self._idle.clear()
        self._busy.clear()
        self._returned.clear()
