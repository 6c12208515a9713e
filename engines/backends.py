"""The backends by name, and the engines of a bundle on one of them."""

from ..bundle import Bundle, check_runs_on_gpu
from ..errors import InputError
from .engine import Engines
from .ort.session import cuda_offered

# Fastest first, after "auto", which takes the first that works.
BACKENDS = ("auto", "tensorrt", "tensorrt-rtx", "onnxruntime-cuda", "onnxruntime")
NO_CUDA = "this ONNX Runtime has no CUDA provider"


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
    # What was found wrong, without the way to mend it, and the backends of which it is true.
    passed_over: dict[str, list[str]] = {}
    for candidate in BACKENDS[1:-1]:
        try:
            return _open(bundle, candidate, threads, _reason(passed_over))
        except InputError as error:
            found = str(error).split("; ", 1)[0].removeprefix(f"backend {candidate}: ")
            passed_over.setdefault(found, []).append(candidate)
    return _open(bundle, BACKENDS[-1], threads, _reason(passed_over))


def obstacle(backend: str) -> str | None:
    """Why one of `BACKENDS` cannot be used here, as one phrase, as far as that shows without a bundle."""
    from .device.cuda import check_driver, find_gpu
    from .trt.library import TENSORRT_BACKENDS, load_library

    try:
        if backend in TENSORRT_BACKENDS:
            load_library(backend)
            check_driver(backend, find_gpu())
            return None
        offered = cuda_offered()
    except InputError as error:
        return str(error)
    return NO_CUDA if backend == "onnxruntime-cuda" and not offered else None


def _open(bundle: Bundle, backend: str, threads: int | None, reason: str) -> Engines:
    # Each backend is imported when it is wanted: opening one must not cost the imports of all.
    if backend != "onnxruntime":
        check_runs_on_gpu(bundle, backend)
    if backend in ("tensorrt", "tensorrt-rtx"):
        from .trt.engines import TensorRTEngines

        return TensorRTEngines(bundle, backend, reason)
    from .ort.cpu import OnnxRuntimeEngines
    from .ort.cuda import OnnxRuntimeCudaEngines

    if backend == "onnxruntime-cuda":
        if not cuda_offered():
            raise InputError(
                f"backend onnxruntime-cuda: {NO_CUDA}; install onnxruntime-gpu instead of onnxruntime, "
                "or use the backend onnxruntime"
            )
        return OnnxRuntimeCudaEngines(bundle, threads, reason)
    return OnnxRuntimeEngines(bundle, threads, reason)


def _reason(passed_over: dict[str, list[str]]) -> str:
    """Why a backend was taken after others were not."""
    parts = [f"{', '.join(backends)}: {found}" for found, backends in passed_over.items()]
    return "; ".join(["the fastest that works here", *parts])
