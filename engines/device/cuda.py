"""The NVIDIA GPU of this machine, through pycuda or cuda-bindings, whichever is installed."""

import importlib.metadata

from ...errors import InputError
from ..packages import device_package, is_installed
from .gpu import Gpu
from .protocol import Device


def find_gpu(index: int = 0) -> Gpu:
    """The GPU with this number.

    Raises:
        InputError: no package for it, there is no NVIDIA driver or one too old, or no such GPU.
    """
    if _needed_package() == "pycuda":
        from . import pycuda_device

        return pycuda_device.find_gpu(index)
    from . import bindings_device

    return bindings_device.find_gpu(index)


def open_device(captures: bool = False) -> Device:
    """The first GPU, opened; with `captures`, through a package that has CUDA graphs.

    Raises:
        InputError: no package for it, there is no NVIDIA driver or one too old, no GPU, or its memory is too
            full.
    """
    package = _needed_package()
    if captures and package == "pycuda":
        if not is_installed("cuda.bindings"):
            raise InputError(
                "cuda_graphs: pycuda has no CUDA graphs; pip install cuda-bindings, or leave cuda_graphs out"
            )
        package = "cuda-bindings"
    if package == "pycuda":
        from .pycuda_device import PycudaDevice

        return PycudaDevice()
    from .bindings_device import BindingsDevice

    return BindingsDevice()


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


def _needed_package() -> str:
    package = device_package()
    if package is None:
        raise InputError(
            "GPU: neither pycuda nor cuda-bindings is installed, the TensorRT backends need one of them; "
            "pip install cuda-bindings, or in sed-trt's folder, pip install -e '.[tensorrt]' or '.[rtx]'"
        )
    return package


def _package_cuda(backend: str) -> int | None:
    """The CUDA version that the installed package of a backend is for: NVIDIA's names say it."""
    for version in range(11, 20):
        try:
            importlib.metadata.version(f"{backend}-cu{version}")
        except importlib.metadata.PackageNotFoundError:
            continue
        return version
    return None
