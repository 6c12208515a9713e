"""What is known of a GPU, and the errors of a GPU or driver that does not work; no CUDA package is needed."""

from dataclasses import dataclass

from ...errors import InputError


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


def cuda_version(number: int) -> str:
    """A version as CUDA counts it: 13020 is "13.2"."""
    return f"{number // 1000}.{number % 1000 // 10}"


def check_index(index: int, count: int) -> None:
    """Refuse the number of a GPU when there are `count`.

    Raises:
        InputError: there is no GPU at all, or none with this number.
    """
    if count == 0:
        raise start_error("no CUDA-capable device is detected")
    if not 0 <= index < count:
        raise InputError(f"GPU: number {index} is not there, expected 0 to {count - 1}")


def package_error(package: str, reason: str) -> InputError:
    """The error of a CUDA package that cannot be used; `reason` is what it says."""
    if any(sign in reason for sign in ("undefined symbol", "version `", "is not found")):
        return InputError(
            f"GPU: the NVIDIA driver is older than the CUDA that {package} was built with ({reason}); update "
            f"the driver, or install {package} for an older CUDA"
        )
    if "libcuda" in reason or "driver library" in reason:
        return InputError(
            f"GPU: there is no NVIDIA driver ({reason}); install it, or in a container start that with "
            "`--gpus all`, or use the backend onnxruntime"
        )
    return InputError(
        f"GPU: {package} is broken ({reason}); pip install --force-reinstall --no-deps {package}, or where "
        f"the other of pycuda and cuda-bindings is installed too, pip uninstall {package}"
    )


def start_error(reason: str) -> InputError:
    """The error of a CUDA driver that does not start, or that finds no GPU."""
    if "no CUDA-capable device" in reason or "invalid device" in reason:
        return InputError(
            f"GPU: the NVIDIA driver finds no GPU ({reason}); check `nvidia-smi` and CUDA_VISIBLE_DEVICES, "
            "or use the backend onnxruntime"
        )
    return InputError(
        f"GPU: CUDA does not start ({reason}); check `nvidia-smi`: the driver's kernel module and its "
        "libraries must be of one version"
    )


def full_error(reason: str) -> InputError:
    """The error of a GPU whose memory is too full to open it."""
    return InputError(
        f"GPU: its memory is too full to open it ({reason}); end other programs on the GPU, or use "
        "the backend onnxruntime"
    )


def open_error(reason: str) -> InputError:
    """The error of a GPU that cannot be opened for another reason."""
    return InputError(
        f"GPU: it cannot be opened ({reason}); check with `nvidia-smi` that it is free and in order, "
        "or use the backend onnxruntime"
    )
