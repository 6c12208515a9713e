"""The CUDA libraries of ONNX Runtime's CUDA provider, from pip's `nvidia-*` wheels or from the system."""

import contextlib
import ctypes
import functools
import re
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from ...errors import InputError
from .session import library

# The number in cuFFT's name by CUDA's major version.
_CUFFT = {12: 11, 13: 12}
_INSTALL = "in sed-trt's folder, pip install -e '.[gpu]', or install CUDA and cuDNN 9 for the whole system"


@functools.cache
def load_cuda_libraries() -> ctypes.CDLL:
    """Load what the CUDA provider needs, and give the CUDA runtime among it.

    The dynamic loader does not look into the folders of Python wheels, but it takes a library of the right
    name that is loaded already. cuDNN is loaded too, although the provider asks for it only at the first
    convolution.

    Raises:
        InputError: ONNX Runtime was built without CUDA, a library is missing or broken, or this is not Linux.
    """
    if sys.platform != "linux":
        raise InputError(
            f"backend onnxruntime-cuda: it runs on Linux, this is {sys.platform}; use another backend"
        )
    version = getattr(library(), "cuda_version", "")
    if not version:
        raise InputError(
            "backend onnxruntime-cuda: this ONNX Runtime was built without CUDA; install onnxruntime-gpu "
            "instead of onnxruntime, or use the backend onnxruntime"
        )
    major = int(version.split(".")[0])
    folders = wheel_folders(major)
    needed, useful = library_names(major)
    for name in useful:
        with contextlib.suppress(OSError):
            _load(name, folders)
    loaded: list[ctypes.CDLL] = []
    problems = []
    for name in needed:
        try:
            loaded.append(_load(name, folders))
        except OSError as error:
            problems.append(str(error))
    if problems:
        raise InputError(
            f"backend onnxruntime-cuda: libraries of CUDA {major} are missing or broken "
            f"({'; '.join(problems)}); {_INSTALL}"
        )
    return loaded[0]


def library_names(major: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The libraries for a major version of CUDA: those that every session needs, then those that some may.

    CUDA's runtime is the first; each comes after those that it needs itself.
    """
    return (
        (
            f"libcudart.so.{major}",
            f"libcublasLt.so.{major}",
            f"libcublas.so.{major}",
            "libcurand.so.10",
            "libcudnn.so.9",
        ),
        # cuDNN compiles kernels with the first two.
        (f"libnvJitLink.so.{major}", f"libnvrtc.so.{major}", f"libcufft.so.{_CUFFT.get(major, major - 1)}"),
    )


def wheel_folders(major: int) -> tuple[Path, ...]:
    """The folders with libraries of the installed `nvidia-*` wheels for a major version of CUDA.

    From CUDA 13 on the wheels share one, nvidia/cu13/lib, apart from cuDNN's; before, each has its own, such
    as nvidia/cublas/lib. They may lie in several places: nvidia is a namespace package.
    """
    spec = find_spec("nvidia")
    roots = [Path(root) for root in (spec.submodule_search_locations or ())] if spec is not None else []
    shared = [root / f"cu{major}" / "lib" for root in roots]
    own = [folder for root in roots for folder in sorted(root.glob("*/lib"))]
    # Not the folder that wheels for another version share.
    own = [folder for folder in own if not re.fullmatch(r"cu\d+", folder.parent.name)]
    return tuple(folder for folder in (*shared, *own) if folder.is_dir())


def _load(name: str, folders: Sequence[Path]) -> ctypes.CDLL:
    """The library from the first folder that has it, else from where the system's loader looks.

    Raises:
        OSError: it is nowhere, or cannot be loaded.
    """
    file = next((folder / name for folder in folders if (folder / name).is_file()), None)
    return ctypes.CDLL(str(file) if file else name)
