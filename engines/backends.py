"""The backends by name, and the engines of a bundle on one of them."""

import sys
from importlib.util import find_spec

from ..bundle import Bundle
from ..errors import InputError
from .engine import Engines
from .ort.session import cuda_offered

# Fastest first, after "auto", which takes the first that works.
BACKENDS = ("auto", "tensorrt", "tensorrt-rtx", "onnxruntime-cuda", "onnxruntime")
NO_CUDA = "this ONNX Runtime has no CUDA provider"
# The Python packages of the TensorRT backends, which need not be installed.
_PACKAGES = {"tensorrt": ("pycuda", "tensorrt"), "tensorrt-rtx": ("pycuda", "tensorrt_rtx")}


def open_engines(bundle: Bundle, backend: str | None = "auto", threads: int | None = None) -> Engines:
    """The engines of `bundle` on a backend; None is "auto", the fastest that works here.

    `threads` bounds the CPU threads of ONNX Runtime; None is one per core.

    Raises:
        InputError: unknown backend, fewer than one thread, or the backend is not there or broken.
    """
    backend = "auto" if backend is None else backend
    if backend not in BACKENDS:
        raise InputError(f"backend: {backend!r} is unknown; choose one of {', '.join(BACKENDS)}")
    if threads is not None and threads < 1:
        raise InputError(f"threads: {threads} is too few, expected at least 1; leave it out for one per core")
    if backend != "auto":
        return _open(bundle, backend, threads, "asked for")
    # Each problem, without the advice that follows it, and the backends that have it.
    problems: dict[str, list[str]] = {}
    for candidate in BACKENDS[1:-1]:
        if package := missing_package(candidate):
            problem = f"{package} is not installed"
        else:
            try:
                return _open(bundle, candidate, threads, _reason(problems))
            except InputError as error:
                problem = str(error).split("; ", 1)[0].removeprefix(f"backend {candidate}: ")
        problems.setdefault(problem, []).append(candidate)
    return _open(bundle, BACKENDS[-1], threads, _reason(problems))


def missing_package(backend: str) -> str | None:
    """The first Python package of a TensorRT backend that is not installed; imports none."""
    for package in _PACKAGES.get(backend, ()):
        if package not in sys.modules and find_spec(package) is None:
            return package
    return None


def unavailable_reason(backend: str) -> str | None:
    """Why one of `BACKENDS` cannot be used here, as one phrase, as far as that shows without a bundle."""
    from .device.cuda import check_driver, find_gpu
    from .targets import TENSORRT_BACKENDS
    from .trt.library import load_library

    try:
        if backend in TENSORRT_BACKENDS:
            load_library(backend)
            check_driver(backend, find_gpu())
            return None
        offered = cuda_offered()
    except InputError as error:
        return str(error)
    return NO_CUDA if backend == "onnxruntime-cuda" and not offered else None


def check_runs_on_gpu(bundle: Bundle, backend: str) -> None:
    """Refuse a bundle whose 8-bit products only ONNX Runtime's CPU provider computes.

    Raises:
        InputError: it is one.
    """
    if bundle.manifest.precision == "int8":
        raise InputError(
            f"backend {backend}: {bundle.path} is an 8-bit bundle, which is for the CPU; "
            "export with --precision fp16, or use the backend onnxruntime"
        )


def _open(bundle: Bundle, backend: str, threads: int | None, reason: str) -> Engines:
    # Each backend is imported when it is chosen: opening one must not cost the imports of all.
    if backend == "onnxruntime":
        from .ort.cpu import OnnxRuntimeEngines

        return OnnxRuntimeEngines(bundle, threads, reason)
    check_runs_on_gpu(bundle, backend)
    if backend == "onnxruntime-cuda":
        if not cuda_offered():
            raise InputError(
                f"backend onnxruntime-cuda: {NO_CUDA}; install onnxruntime-gpu instead of onnxruntime, "
                "or use the backend onnxruntime"
            )
        from .ort.cuda import OnnxRuntimeCudaEngines

        return OnnxRuntimeCudaEngines(bundle, threads, reason)
    from .trt.engines import TensorRTEngines

    return TensorRTEngines(bundle, backend, reason)


def _reason(problems: dict[str, list[str]]) -> str:
    """Why a backend is taken after others could not be."""
    parts = [f"{', '.join(backends)}: {problem}" for problem, backends in problems.items()]
    return "; ".join(["the fastest that works here", *parts])
