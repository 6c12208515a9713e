"""The interface of a GPU (memory, one stream of work, events) and the errors of too little memory."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol

import numpy as np

from ...errors import InputError


class DeviceMemoryError(Exception):
    """There is too little free memory on the device, or of the host's for the device, for an allocation."""


class CaptureError(Exception):
    """Work cannot be captured as a CUDA graph."""


class Event(Protocol):
    """A mark in the stream of work."""

    def is_done(self) -> bool:
        """Whether all work before the mark is done."""

    def wait(self) -> None:
        """Block this thread, and no other, until it is."""


class Graph(Protocol):
    """Work that was captured from the stream, with the addresses it had then."""

    def launch(self) -> None:
        """Put the work into the stream once more."""


class Device(Protocol):
    """A GPU with one stream: work that is put into it is done in that order, after the call has returned.

    Every method but `active` and `close` is called within `active`, in any thread.
    """

    @property
    def stream(self) -> int:
        """Handle of the stream."""

    def active(self) -> AbstractContextManager[None]:
        """Make the device current in this thread for the length of a block."""

    def allocate(self, size: int) -> int:
        """Address of `size` new bytes, a multiple of 256; raises DeviceMemoryError."""

    def free(self, pointer: int) -> None:
        """Give back what `allocate` gave, once the work that uses it is done."""

    def free_bytes(self) -> int:
        """Bytes that are free on the device at this moment."""

    def allocate_host(self, size: int) -> np.ndarray:
        """New host memory that the device can copy by itself, uint8 (size,); raises DeviceMemoryError."""

    def upload(self, pointer: int, source: np.ndarray) -> None:
        """Put a copy from host memory into the stream; `source` must be left alone until it is done."""

    def download(self, target: np.ndarray, pointer: int) -> None:
        """Put a copy to host memory into the stream."""

    def copy(self, target: int, source: int, size: int) -> None:
        """Put a copy of `size` bytes on the device into the stream."""

    def record(self) -> Event:
        """Put a mark into the stream."""

    def capture(self, enqueue: Callable[[], None]) -> Graph:
        """Record what `enqueue` puts into the stream instead of doing it.

        Memory that the work uses must stay as it is while the graph is used.

        Raises:
            CaptureError: the device has no graphs, or the work cannot be captured.
        """

    def close(self) -> None:
        """Destroy the stream, marks and graphs, outside `active`: no work may be under way, nor come."""


def out_of_memory(purpose: str, size: int | None, free: int | None) -> InputError:
    """The error of a GPU whose memory is too small.

    Args:
        purpose: of the memory.
        size: bytes of the request; None where they are not known.
        free: bytes on the GPU; None where they are not known.
    """
    request = "more memory" if size is None else _mebibytes(size)
    left = "" if free is None else f", {_mebibytes(free)} free"
    return InputError(
        f"{purpose}: the GPU's memory is too small ({request} asked for{left}); lower the number of kept "
        "categories (--rejection budget:N), --batch or --short-side, build with a lower --max-categories, "
        "or end other programs on the GPU"
    )


def out_of_pinned_memory(purpose: str, size: int) -> InputError:
    """The error of a host that cannot reserve `size` bytes for copies to and from the GPU."""
    return InputError(
        f"{purpose}: the host's memory for copies to and from the GPU is too small ({_mebibytes(size)} asked "
        "for); lower --batch or --short-side, or end other programs"
    )


def _mebibytes(size: int) -> str:
    return f"{size / 2**20:,.1f} MiB"
