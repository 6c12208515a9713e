"""The NVIDIA GPU of this machine, through pycuda."""

import importlib.metadata
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from ...errors import InputError
from .protocol import DeviceMemoryError


@dataclass(frozen=True)
class Gpu:
    """A GPU.

    Attributes:
        name: for example "NVIDIA RTX A6000".
        capability: its compute capability, for example (8, 6).
        driver: the newest CUDA version that its driver supports, for example "13.0".
        memory: bytes on the device.
    """

    name: str
    capability: tuple[int, int]
    driver: str
    memory: int


def cuda_driver() -> ModuleType:
    """The module pycuda.driver, initialised; no context is made.

    Raises:
        InputError: pycuda is missing, there is no NVIDIA driver or one too old, or no GPU.
    """
    try:
        import pycuda.driver as cuda
    except ModuleNotFoundError as error:
        raise InputError(
            "GPU: pycuda is not installed, the TensorRT backends need it; in sed-trt's folder, "
            "pip install -e '.[tensorrt]' or '.[rtx]'"
        ) from error
    except ImportError as error:
        raise _driver_error(str(error)) from error
    try:
        cuda.init()
        count = cuda.Device.count()
    except cuda.Error as error:
        raise _start_error(str(error)) from error
    if count == 0:
        raise _start_error("no CUDA-capable device is detected")
    return cuda


def find_gpu(index: int = 0) -> Gpu:
    """The GPU with this number.

    Raises:
        InputError: pycuda is missing, there is no NVIDIA driver or one too old, or no such GPU.
    """
    cuda = cuda_driver()
    count = cuda.Device.count()
    if not 0 <= index < count:
        raise InputError(f"GPU: number {index} is not there, expected 0 to {count - 1}")
    device = cuda.Device(index)
    version = cuda.get_driver_version()
    return Gpu(
        name=device.name(),
        capability=tuple(device.compute_capability()),
        # 13020 is CUDA 13.2.
        driver=f"{version // 1000}.{version % 1000 // 10}",
        memory=device.total_memory(),
    )


def check_driver(backend: str, gpu: Gpu) -> None:
    """Refuse a driver that is too old for the installed TensorRT, which would crash rather than say so.

    Raises:
        InputError: the package is for a later CUDA than the driver supports.
    """
    needed = _package_cuda(backend)
    if needed is not None and int(gpu.driver.split(".")[0]) < needed:
        raise InputError(
            f"backend {backend}: the NVIDIA driver supports CUDA {gpu.driver}, {backend}-cu{needed} needs "
            f"CUDA {needed}; update the driver"
        )


def _package_cuda(backend: str) -> int | None:
    """The CUDA version that the installed package of a backend is for: NVIDIA's names say it."""
    for version in range(11, 20):
        try:
            importlib.metadata.version(f"{backend}-cu{version}")
        except importlib.metadata.PackageNotFoundError:
            continue
        return version
    return None


def _driver_error(reason: str) -> InputError:
    if "undefined symbol" in reason or "version `" in reason:
        return InputError(
            f"GPU: the NVIDIA driver is older than the CUDA that pycuda was built with ({reason}); "
            "update the driver, or build pycuda again with an older CUDA toolkit"
        )
    if "libcuda" in reason:
        return InputError(
            f"GPU: there is no NVIDIA driver ({reason}); install it, or in a container start that with "
            "`--gpus all`, or use the backend onnxruntime"
        )
    return InputError(f"GPU: pycuda is broken ({reason}); pip install --force-reinstall --no-deps pycuda")


def _start_error(reason: str) -> InputError:
    if "no CUDA-capable device" in reason or "invalid device" in reason:
        return InputError(
            f"GPU: the NVIDIA driver finds no GPU ({reason}); check `nvidia-smi` and CUDA_VISIBLE_DEVICES, "
            "or use the backend onnxruntime"
        )
    return InputError(
        f"GPU: CUDA does not start ({reason}); check `nvidia-smi`: the driver's kernel module and its "
        "libraries must be of one version"
    )


class CudaEvent:
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


class CudaDevice:
    """One GPU: its primary context, which other CUDA libraries of this process share, and one stream."""

    def __init__(self, index: int = 0) -> None:
        """Open the GPU.

        Raises:
            InputError: there is none, its driver does not start, or its memory is too full for that.
        """
        self._cuda = cuda_driver()
        # pycuda frees memory and destroys events only through the objects it gave.
        self._allocations: dict[int, Any] = {}
        self._spare_events: deque[Any] = deque()
        try:
            self._context = self._cuda.Device(index).retain_primary_context()
            with self.active():
                self._stream = self._cuda.Stream()
        except self._cuda.MemoryError as error:
            raise InputError(
                f"GPU: its memory is too full to open it ({error}); end other programs on the GPU, or use "
                "the backend onnxruntime"
            ) from error
        except self._cuda.Error as error:
            raise InputError(
                f"GPU: it cannot be opened ({error}); check with `nvidia-smi` that it is free and in order, "
                "or use the backend onnxruntime"
            ) from error

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

    def record(self) -> CudaEvent:
        """Put a mark into the stream."""
        try:
            event = self._spare_events.popleft()
        except IndexError:
            event = self._cuda.Event(self._cuda.event_flags.DISABLE_TIMING)
        # First, so that the event is kept when it cannot be recorded.
        mark = CudaEvent(event, self._spare_events)
        event.record(self._stream)
        return mark

    def close(self) -> None:
        """Destroy the stream and the events: no work may be under way, nor come."""
        with self.active():
            self._spare_events.clear()
            del self._stream
