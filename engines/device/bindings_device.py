"""The GPU through cuda-bindings, NVIDIA's own package: wheels without a compiler, which PyTorch brings."""

import ctypes
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import ModuleType
from typing import Any

import numpy as np

from .gpu import Gpu, check_index, cuda_version, full_error, open_error, package_error, start_error
from .protocol import CaptureError, DeviceMemoryError


class CudaError(Exception):
    """A call of the CUDA driver failed."""


class CudaMemoryError(CudaError):
    """A call of the CUDA driver found too little memory."""


def checked(cuda: ModuleType, answer: tuple[Any, ...]) -> Any:
    """What a call of the driver gave beside its status: None, one value, or a tuple of several.

    Raises:
        CudaError: the status is an error; its text is CUDA's name and description of it.
    """
    status, *values = answer
    if status != cuda.CUresult.CUDA_SUCCESS:
        (_, name), (_, text) = cuda.cuGetErrorName(status), cuda.cuGetErrorString(status)
        # CUDA gives neither for a status that it does not know.
        message = ": ".join(part.decode() for part in (name, text) if part) or f"status {int(status)}"
        full = status == cuda.CUresult.CUDA_ERROR_OUT_OF_MEMORY
        raise (CudaMemoryError if full else CudaError)(message)
    if len(values) > 1:
        return tuple(values)
    return values[0] if values else None


def start() -> ModuleType:
    """The module cuda.bindings.driver, initialised; no context is made.

    Raises:
        InputError: cuda-bindings is broken, there is no NVIDIA driver or one too old, or CUDA does not start.
    """
    try:
        from cuda.bindings import driver as cuda
    except ImportError as error:
        raise package_error("cuda-bindings", str(error)) from error
    try:
        checked(cuda, cuda.cuInit(0))
    except CudaError as error:
        raise start_error(str(error)) from error
    except RuntimeError as error:
        # The library of the driver is loaded by the first call.
        raise package_error("cuda-bindings", str(error)) from error
    return cuda


def find_gpu(index: int) -> Gpu:
    """The GPU with this number; raises InputError as `start` does, or when it is not there."""
    cuda = start()
    check_index(index, checked(cuda, cuda.cuDeviceGetCount()))
    device = checked(cuda, cuda.cuDeviceGet(index))
    attributes = cuda.CUdevice_attribute
    major, minor = (
        checked(cuda, cuda.cuDeviceGetAttribute(attribute, device))
        for attribute in (
            attributes.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR,
            attributes.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR,
        )
    )
    # A zero byte ends the name; what follows it has no meaning.
    name = checked(cuda, cuda.cuDeviceGetName(256, device)).split(b"\0")[0].decode().strip()
    return Gpu(
        name=name,
        capability=(major, minor),
        driver=cuda_version(checked(cuda, cuda.cuDriverGetVersion())),
        memory=checked(cuda, cuda.cuDeviceTotalMem(device)),
    )


class BindingsEvent:
    """A mark in the stream; its CUDA event is used again for a later mark."""

    def __init__(self, cuda: ModuleType, event: Any, spare: deque[Any]) -> None:
        self._cuda = cuda
        self._event = event
        self._spare = spare

    def is_done(self) -> bool:
        """Whether all work before the mark is done."""
        answer = self._cuda.cuEventQuery(self._event)
        if answer[0] == self._cuda.CUresult.CUDA_ERROR_NOT_READY:
            return False
        checked(self._cuda, answer)
        return True

    def wait(self) -> None:
        """Block this thread until it is; others run on."""
        checked(self._cuda, self._cuda.cuEventSynchronize(self._event))

    def __del__(self) -> None:
        self._spare.append(self._event)


class BindingsGraph:
    """Captured work; it belongs to the device, which destroys it at its end."""

    def __init__(self, cuda: ModuleType, executable: Any, stream: Any) -> None:
        self._cuda = cuda
        self._executable = executable
        self._stream = stream

    def launch(self) -> None:
        """Put the work into the stream once more."""
        checked(self._cuda, self._cuda.cuGraphLaunch(self._executable, self._stream))


class BindingsDevice:
    """One GPU: its primary context, which other CUDA libraries of this process share, and one stream."""

    def __init__(self, index: int = 0) -> None:
        """Open the GPU.

        Raises:
            InputError: there is none, its driver does not start, or its memory is too full for that.
        """
        self._cuda = cuda = start()
        self._spare_events: deque[Any] = deque()
        self._graphs: list[Any] = []
        # Pinned memory that nobody refers to any more; it can be freed only where the context is current.
        self._ended_host: deque[int] = deque()
        try:
            check_index(index, self._check(cuda.cuDeviceGetCount()))
            device = self._check(cuda.cuDeviceGet(index))
            # Like the CUDA runtime, this leaves the context to the end of the process: objects of TensorRT
            # may live longer than the device.
            self._context = self._check(cuda.cuDevicePrimaryCtxRetain(device))
            with self.active():
                self._stream = self._check(cuda.cuStreamCreate(cuda.CUstream_flags.CU_STREAM_NON_BLOCKING))
        except CudaMemoryError as error:
            raise full_error(str(error)) from error
        except CudaError as error:
            raise open_error(str(error)) from error

    @property
    def stream(self) -> int:
        """Handle of the stream."""
        return int(self._stream)

    @contextmanager
    def active(self) -> Iterator[None]:
        """Make the context current in this thread for the length of a block."""
        self._check(self._cuda.cuCtxPushCurrent(self._context))
        try:
            yield
        finally:
            self._check(self._cuda.cuCtxPopCurrent())

    def allocate(self, size: int) -> int:
        """Address of `size` new bytes; raises DeviceMemoryError."""
        try:
            return int(self._check(self._cuda.cuMemAlloc(size)))
        except CudaMemoryError as error:
            raise DeviceMemoryError(str(error)) from error

    def free(self, pointer: int) -> None:
        """Give memory back; CUDA waits for the work that uses it."""
        self._check(self._cuda.cuMemFree(pointer))

    def free_bytes(self) -> int:
        """Bytes that are free on the device at this moment."""
        free, _ = self._check(self._cuda.cuMemGetInfo())
        return int(free)

    def allocate_host(self, size: int) -> np.ndarray:
        """New pinned host memory, uint8 (size,); raises DeviceMemoryError."""
        self._free_ended_host()
        try:
            pointer = int(self._check(self._cuda.cuMemHostAlloc(size, 0)))
        except CudaMemoryError as error:
            raise DeviceMemoryError(str(error)) from error
        memory = (ctypes.c_uint8 * size).from_address(pointer)
        # Every array that shows a part of the memory refers to this object.
        weakref.finalize(memory, self._ended_host.append, pointer).atexit = False
        return np.frombuffer(memoryview(memory), np.uint8)

    def upload(self, pointer: int, source: np.ndarray) -> None:
        """Copy from pinned host memory, in the stream."""
        address, size = source.ctypes.data, source.nbytes
        self._check(self._cuda.cuMemcpyHtoDAsync(pointer, address, size, self._stream))

    def download(self, target: np.ndarray, pointer: int) -> None:
        """Copy to pinned host memory, in the stream."""
        address, size = target.ctypes.data, target.nbytes
        self._check(self._cuda.cuMemcpyDtoHAsync(address, pointer, size, self._stream))

    def copy(self, target: int, source: int, size: int) -> None:
        """Copy on the device, in the stream."""
        self._check(self._cuda.cuMemcpyDtoDAsync(target, source, size, self._stream))

    def record(self) -> BindingsEvent:
        """Put a mark into the stream."""
        try:
            event = self._spare_events.popleft()
        except IndexError:
            event = self._check(self._cuda.cuEventCreate(self._cuda.CUevent_flags.CU_EVENT_DISABLE_TIMING))
        # First, so that the event is kept when it cannot be recorded.
        mark = BindingsEvent(self._cuda, event, self._spare_events)
        self._check(self._cuda.cuEventRecord(event, self._stream))
        return mark

    def capture(self, enqueue: Callable[[], None]) -> BindingsGraph:
        """Record what `enqueue` puts into the stream instead of doing it; raises CaptureError."""
        cuda = self._cuda
        # Other threads, of this product or of others, may do with CUDA what they want meanwhile.
        mode = cuda.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
        try:
            self._check(cuda.cuStreamBeginCapture(self._stream, mode))
            try:
                enqueue()
            except BaseException:
                # The stream takes no other work before the capture has ended.
                with suppress(CudaError):
                    self._check(cuda.cuGraphDestroy(self._check(cuda.cuStreamEndCapture(self._stream))))
                raise
            graph = self._check(cuda.cuStreamEndCapture(self._stream))
            try:
                executable = self._check(cuda.cuGraphInstantiate(graph, 0))
            finally:
                self._check(cuda.cuGraphDestroy(graph))
        except CudaError as error:
            raise CaptureError(str(error)) from error
        self._graphs.append(executable)
        return BindingsGraph(cuda, executable, self._stream)

    def close(self) -> None:
        """Destroy the stream, events, graphs and pinned memory: no work may be under way, nor come."""
        cuda = self._cuda
        with self.active():
            for executable in self._graphs:
                self._check(cuda.cuGraphExecDestroy(executable))
            for event in self._spare_events:
                self._check(cuda.cuEventDestroy(event))
            self._graphs.clear()
            self._spare_events.clear()
            self._free_ended_host()
            self._check(cuda.cuStreamDestroy(self._stream))

    def _free_ended_host(self) -> None:
        while self._ended_host:
            pointer = self._ended_host.popleft()
            self._check(self._cuda.cuMemFreeHost(pointer))

    def _check(self, answer: tuple[Any, ...]) -> Any:
        return checked(self._cuda, answer)
