"""The NVIDIA GPU of this machine, found without a CUDA context."""

import importlib.metadata
from dataclasses import dataclass
from types import ModuleType

from ..errors import InputError


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
