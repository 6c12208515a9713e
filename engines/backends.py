"""The backends by name, and the engines of a bundle on one of them."""

import platform
from collections.abc import Mapping

from ..bundle import Bundle
from ..errors import InputError
from .engine import Engines
from .ort.session import cuda_offered
from .packages import DEVICE_PACKAGES, is_installed

# Those with a GPU come first, fastest first, after "auto", which takes the first that works.
BACKENDS = ("auto", "tensorrt", "tensorrt-rtx", "onnxruntime-cuda", "openvino", "onnxruntime")
NO_CUDA = "this ONNX Runtime has no CUDA provider"
# The Python modules of the backends that need not be installed, each with those that can stand in for it.
_MODULES: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "tensorrt": (tuple(DEVICE_PACKAGES), ("tensorrt",)),
    "tensorrt-rtx": (tuple(DEVICE_PACKAGES), ("tensorrt_rtx",)),
    "openvino": (("openvino",),),
}
CPU_BACKENDS = ("openvino", "onnxruntime")
# Why OpenVINO is taken first on a CPU, by precision of the bundle. The times are of one image with 150
# categories, 32 of them kept, on two cores of an x86-64 processor with AMX.
_OPENVINO_FIRST = {
    "fp32": "1.2 times as fast as ONNX Runtime where both were measured, on an x86-64 processor with AMX",
    "fp16": "OpenVINO computes FP16 weights in FP32, ONNX Runtime converts between its operators",
    "bf16": "of the CPU backends only OpenVINO computes BF16",
    "int8": "5 times as fast as ONNX Runtime where both were measured, on an x86-64 processor with AMX",
}
# What `platform.machine` calls the processors on which that was measured.
_MEASURED_ON = ("x86_64", "amd64")


def open_engines(
    bundle: Bundle,
    backend: str | None = "auto",
    threads: int | None = None,
    images_at_once: int = 1,
    cuda_graphs: bool = False,
) -> Engines:
    """The engines of `bundle` on a backend; None is "auto", the fastest that works here.

    `threads` bounds the CPU threads of one stage; None is one per core, or an equal share of the cores for
    each of `images_at_once`, which see in `Engines`. Backends with a GPU take more than one in their own way.
    `cuda_graphs` is for those: each stage is launched as a whole, see their classes.

    Raises:
        InputError: unknown backend, fewer than one thread or image, or the backend is not there or broken.
    """
    backend = "auto" if backend is None else backend
    if backend not in BACKENDS:
        raise InputError(f"backend: {backend!r} is unknown; choose one of {', '.join(BACKENDS)}")
    if threads is not None and threads < 1:
        raise InputError(f"threads: {threads} is too few, expected at least 1; leave it out for one per core")
    if images_at_once < 1:
        raise InputError(f"images_at_once: {images_at_once} is too few, expected at least 1")
    if backend != "auto":
        return _open(bundle, backend, threads, "asked for", images_at_once, cuda_graphs)
    on_cpu, evidence = cpu_order(bundle.manifest.precision, platform.machine())
    # Each problem, without the advice that follows it, and the backends that have it.
    problems: dict[str, list[str]] = {}
    *candidates, last = (*_gpu_backends(), *on_cpu)
    for candidate in candidates:
        if package := missing_package(candidate):
            problem = f"{package} is not installed"
        else:
            try:
                reason = _reason(problems, evidence.get(candidate))
                return _open(bundle, candidate, threads, reason, images_at_once, cuda_graphs)
            except InputError as error:
                problem = str(error).split("; ", 1)[0].removeprefix(f"backend {candidate}: ")
        problems.setdefault(problem, []).append(candidate)
    return _open(bundle, last, threads, _reason(problems, evidence.get(last)), images_at_once, cuda_graphs)


def cpu_order(precision: str, machine: str) -> tuple[tuple[str, ...], dict[str, str]]:
    """The CPU backends for a bundle of `precision`, fastest first, and by backend why that is so.

    `machine` is the processor's architecture as `platform.machine` says.
    """
    if precision != "bf16" and machine.lower() not in _MEASURED_ON:
        return CPU_BACKENDS[::-1], {"onnxruntime": f"OpenVINO was not measured on {machine}"}
    return CPU_BACKENDS, {"openvino": _OPENVINO_FIRST[precision]}


def _gpu_backends() -> tuple[str, ...]:
    return tuple(backend for backend in BACKENDS[1:] if backend not in CPU_BACKENDS)


def missing_package(backend: str) -> str | None:
    """The first Python module of a backend that is not installed, with what can stand in for it."""
    for modules in _MODULES.get(backend, ()):
        if not any(is_installed(module) for module in modules):
            return " or ".join(modules)
    return None


def unavailable_reason(backend: str) -> str | None:
    """Why one of `BACKENDS` cannot be used here, as one phrase, as far as that shows without a bundle."""
    try:
        if backend == "auto":
            return _no_cpu_backend()
        if backend == "openvino":
            from .openvino.library import processor

            processor()
            return None
        if backend in _MODULES:
            from .device.cuda import check_driver, find_gpu
            from .trt.library import load_library

            library, gpu = load_library(backend), find_gpu()
            check_driver(backend, gpu)
            library.check_gpu(gpu)
            return None
        offered = cuda_offered()
        if backend == "onnxruntime-cuda" and offered:
            from .ort.cuda_libraries import load_cuda_libraries

            load_cuda_libraries()
    except InputError as error:
        return str(error)
    return NO_CUDA if backend == "onnxruntime-cuda" and not offered else None


def _no_cpu_backend() -> str | None:
    """Why no backend runs on the CPU; None if one does."""
    reasons = [unavailable_reason(backend) for backend in CPU_BACKENDS]
    return None if None in reasons else reasons[-1]


def check_runs_on_gpu(bundle: Bundle, backend: str) -> None:
    """Refuse a bundle of 8-bit products, which are for the CPU.

    Raises:
        InputError: it is one.
    """
    if bundle.manifest.precision == "int8":
        raise InputError(
            f"backend {backend}: {bundle.path} is an 8-bit bundle, which is for the CPU; "
            "export with --precision fp16, or use the backend openvino or onnxruntime"
        )


def _open(
    bundle: Bundle, backend: str, threads: int | None, reason: str, images_at_once: int, cuda_graphs: bool
) -> Engines:
    # Each backend is imported when it is chosen: opening one must not cost the imports of all.
    if backend == "onnxruntime":
        from .ort.cpu import OnnxRuntimeEngines

        return OnnxRuntimeEngines(bundle, threads, reason, images_at_once)
    if backend == "openvino":
        from .openvino.engines import OpenVinoEngines

        return OpenVinoEngines(bundle, threads, reason, images_at_once)
    check_runs_on_gpu(bundle, backend)
    if backend == "onnxruntime-cuda":
        if not cuda_offered():
            raise InputError(
                f"backend onnxruntime-cuda: {NO_CUDA}; install onnxruntime-gpu instead of onnxruntime, "
                "or use the backend onnxruntime"
            )
        from .ort.cuda import OnnxRuntimeCudaEngines

        return OnnxRuntimeCudaEngines(bundle, threads, reason, cuda_graphs=cuda_graphs)
    from .trt.engines import TensorRTEngines

    return TensorRTEngines(bundle, backend, reason, cuda_graphs=cuda_graphs)


def _reason(problems: dict[str, list[str]], evidence: str | None) -> str:
    """Why a backend is taken after others could not be; `evidence` says why it is before the next one."""
    first = "the fastest that works here" + (f": {evidence}" if evidence else "")
    parts = [f"{', '.join(backends)}: {problem}" for problem, backends in problems.items()]
    return "; ".join([first, *parts])
