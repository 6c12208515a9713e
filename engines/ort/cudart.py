"""A GPU through the CUDA runtime that ONNX Runtime has loaded: no other package is needed for it."""

import ctypes
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np

from ...errors import InputError
from ..device.protocol import CaptureError, DeviceMemoryError, Graph

# Of cuda_runtime_api.h: results, flags, and the direction of a copy that CUDA tells by the addresses.
_SUCCESS, _OUT_OF_MEMORY, _NOT_READY = 0, 2, 600
_STREAM_NON_BLOCKING = 1
_EVENT_DISABLE_TIMING = 2
_COPY_BY_ADDRESS = 4


class CudaRuntimeEvent:
    """A mark in the stream; its CUDA event is used again for a later mark."""

    def __init__(self, runtime: "CudaRuntime", event: int, spare: deque[int]) -> None:
        self._runtime = runtime
        self._event = event
        self._spare = spare

    def is_done(self) -> bool:
        """Whether all work before the mark is done."""
        return self._runtime.call("cudaEventQuery", self._event, accepted=(_SUCCESS, _NOT_READY)) == _SUCCESS

    def wait(self) -> None:
        """Block this thread until it is; others run on."""
        self._runtime.call("cudaEventSynchronize", self._event)

    def __del__(self) -> None:
        self._spare.append(self._event)


class CudaRuntime:
    """The functions of a libcudart, whose errors become exceptions."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library
        library.cudaGetErrorString.restype = ctypes.c_char_p

    def call(self, function: str, *arguments: object, accepted: tuple[int, ...] = (_SUCCESS,)) -> int:
        """Call a function that returns a status; whole numbers among its arguments are addresses or sizes.

        Returns:
            The status, one of `accepted`.

        Raises:
            DeviceMemoryError: it says that memory is too small.
            RuntimeError: it returns another status.
        """
        wide = [ctypes.c_size_t(value) if isinstance(value, int) else value for value in arguments]
        status: int = getattr(self._library, function)(*wide)
        if status in accepted:
            return status
        # CUDA keeps the error for whoever asks next, which ONNX Runtime does after each of its kernels.
        self._library.cudaGetLastError()
        reason = self._library.cudaGetErrorString(status).decode()
        if status == _OUT_OF_MEMORY:
            raise DeviceMemoryError(reason)
        raise RuntimeError(f"{function}: {reason}")


class CudaRuntimeDevice:
    """One GPU, in the context that all users of the CUDA runtime share, and one stream of our own."""

    def __init__(self, library: ctypes.CDLL, index: int = 0) -> None:
        """Open the GPU through a loaded libcudart.

        Raises:
            InputError: there is no GPU or driver, the driver is too old, or the GPU's memory is too full.
        """
        self._runtime = CudaRuntime(library)
        self._index = index
        self._spare_events: deque[int] = deque()
        self._events: list[int] = []
        stream = ctypes.c_void_p()
        try:
            with self.active():
                # Not one that waits for the default stream, which other libraries of the process may use.
                self._runtime.call(
                    "cudaStreamCreateWithFlags", ctypes.byref(stream), ctypes.c_uint(_STREAM_NON_BLOCKING)
                )
        except (RuntimeError, DeviceMemoryError) as error:
            raise InputError(
                f"backend onnxruntime-cuda: CUDA did not start ({error}), expected an NVIDIA GPU and its "
                "driver; check `nvidia-smi`, use the backend onnxruntime or see `sed-trt doctor`"
            ) from error
        self._stream = stream.value or 0

    @property
    def stream(self) -> int:
        """Handle of the stream."""
        return self._stream

    @contextmanager
    def active(self) -> Iterator[None]:
        """Make the GPU current in this thread."""
        self._runtime.call("cudaSetDevice", ctypes.c_int(self._index))
        yield

    def allocate(self, size: int) -> int:
        """Address of `size` new bytes; raises DeviceMemoryError."""
        pointer = ctypes.c_void_p()
        self._runtime.call("cudaMalloc", ctypes.byref(pointer), size)
        return pointer.value or 0

    def free(self, pointer: int) -> None:
        """Give memory back; CUDA waits for the work that uses it."""
        self._runtime.call("cudaFree", pointer)

    def free_bytes(self) -> int:
        """Bytes that are free on the device at this moment."""
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        self._runtime.call("cudaMemGetInfo", ctypes.byref(free), ctypes.byref(total))
        return free.value

    def allocate_host(self, size: int) -> np.ndarray:
        """New pinned host memory, uint8 (size,); raises DeviceMemoryError."""
        pointer = ctypes.c_void_p()
        self._runtime.call("cudaHostAlloc", ctypes.byref(pointer), size, ctypes.c_uint(0))
        memory = (ctypes.c_uint8 * size).from_address(pointer.value or 0)
        # The array refers to `memory`; at exit CUDA itself gives everything back.
        weakref.finalize(memory, self._runtime.call, "cudaFreeHost", pointer).atexit = False
        array: np.ndarray = np.ctypeslib.as_array(memory)
        return array

    def upload(self, pointer: int, source: np.ndarray) -> None:
        """Copy from pinned host memory, in the stream."""
        self.copy(pointer, source.ctypes.data, source.nbytes)

    def download(self, target: np.ndarray, pointer: int) -> None:
        """Copy to pinned host memory, in the stream."""
        self.copy(target.ctypes.data, pointer, target.nbytes)

    def copy(self, target: int, source: int, size: int) -> None:
        """Copy on the device, in the stream."""
        direction = ctypes.c_int(_COPY_BY_ADDRESS)
        self._runtime.call("cudaMemcpyAsync", target, source, size, direction, self._stream)

    def record(self) -> CudaRuntimeEvent:
        """Put a mark into the stream."""
        try:
            event = self._spare_events.popleft()
        except IndexError:
            created = ctypes.c_void_p()
            flags = ctypes.c_uint(_EVENT_DISABLE_TIMING)
            self._runtime.call("cudaEventCreateWithFlags", ctypes.byref(created), flags)
            event = created.value or 0
            self._events.append(event)
        # First, so that the event is kept when it cannot be recorded.
        mark = CudaRuntimeEvent(self._runtime, event, self._spare_events)
        self._runtime.call("cudaEventRecord", event, self._stream)
        return mark

    def capture(self, enqueue: Callable[[], None]) -> Graph:
        """Raise CaptureError: ONNX Runtime records its work by itself."""
        raise CaptureError("ONNX Runtime records its work by itself")

    def close(self) -> None:
        """Destroy the stream and the events: no work may be under way, nor come."""
        with self.active():
            for event in self._events:
                self._runtime.call("cudaEventDestroy", event)
            self._events.clear()
            self._runtime.call("cudaStreamDestroy", self._stream)
