"""The backend and target of a build, and whether this machine can build for them."""

import platform

import msgspec

from ...bundle import Bundle
from ...errors import InputError
from ..backends import CPU_BACKENDS, cpu_order
from ..device.cuda import find_gpu
from ..device.gpu import Gpu
from ..openvino.precision import bundle_arithmetic
from ..ort.session import check_runs_on_cpu
from ..ort.session import library as onnxruntime_library
from ..profiles import Limits
from ..targets import (
    AMPERE_PLUS,
    CPU,
    CURRENT,
    PORTABLE,
    TENSORRT_BACKENDS,
    BuildOptions,
    canonical_target,
    capability_name,
    named_capability,
    no_such_option,
    target_fits,
)
from ..trt.library import Library, load_library


def default_backend(bundle: Bundle) -> str:
    """The first backend that can build a bundle here: TensorRT's, then the CPU's in the order of `auto`.

    Raises:
        InputError: none can; the reason is that of the last one on the CPU.
    """
    eight_bit = bundle.manifest.precision == "int8"
    for backend in () if eight_bit else TENSORRT_BACKENDS:
        try:
            library = load_library(backend)
            if not library.builds_for_others:
                find_gpu()
            return backend
        except InputError:
            continue
    order, _ = cpu_order(bundle.manifest.precision, platform.machine())
    for backend in order[:-1]:
        try:
            check_builds_on_cpu(bundle, backend)
            return backend
        except InputError:
            continue
    check_builds_on_cpu(bundle, order[-1])
    return order[-1]


def check_builds_on_cpu(bundle: Bundle, backend: str) -> None:
    """Refuse a bundle that a backend of `CPU_BACKENDS` cannot build here.

    Raises:
        InputError: its library is missing or broken, or does not compute the bundle's precision.
    """
    if backend == "openvino":
        bundle_arithmetic(bundle)
    else:
        onnxruntime_library()
        check_runs_on_cpu(bundle, *bundle.manifest.stages.values())


def cpu_target(backend: str, target: str | None, limits: Limits, options: BuildOptions) -> str:
    """The target of a build by a backend of `CPU_BACKENDS`.

    Raises:
        InputError: `target` is not the CPU, an option is chosen, or limits are not the default ones.
    """
    options.refuse(backend, frozenset(options.chosen()))
    for name, value in msgspec.structs.asdict(limits).items():
        if value != getattr(Limits(), name):
            raise no_such_option(name, backend)
    if target is not None and canonical_target(target) != CPU:
        raise InputError(
            f"target: {backend} builds for {CPU} only, not for {target!r}; leave the target out, "
            f"or use a backend of {', '.join(TENSORRT_BACKENDS)}"
        )
    return CPU


def gpu_target(library: Library, target: str | None, options: BuildOptions) -> tuple[str, Gpu | None]:
    """The target of a build by TensorRT or TensorRT-RTX, and the GPU that it is built on if it needs one.

    Raises:
        InputError: unknown target, one this library cannot build for here, or an option it does not have; or
            a GPU is needed and there is none.
    """
    library.check_options(options)
    default = PORTABLE if library.builds_for_others else CURRENT
    name = canonical_target(default if target is None else target)
    if name == CPU:
        raise InputError(
            f"target: {library.backend} builds for NVIDIA GPUs, not for the CPU; "
            f"use a backend of {', '.join(CPU_BACKENDS)} for that"
        )
    if library.builds_for_others:
        return _any_target(library, name)
    return _target_here(library, name, options)


def _any_target(library: Library, target: str) -> tuple[str, Gpu | None]:
    """The target of a library that builds for GPUs which are not in this machine."""
    known = library.capabilities()
    if target == PORTABLE or target in known:
        return target, None
    refusal = InputError(
        f"target: {library.backend} {library.version} cannot name {target}; it knows {PORTABLE}, "
        f"{', '.join(known)} and {CURRENT}, which is the GPU in this machine"
    )
    if target == CURRENT:
        gpu = find_gpu()
        library.check_gpu(gpu)
        name = capability_name(gpu.capability)
        return name, (None if name in known else gpu)
    try:
        gpu = find_gpu()
    except InputError as error:
        raise refusal from error
    if named_capability(target) != gpu.capability:
        raise refusal
    library.check_gpu(gpu)
    return target, gpu


def _target_here(library: Library, target: str, options: BuildOptions) -> tuple[str, Gpu | None]:
    """The target of a library that builds for the GPU in this machine only."""
    gpu = find_gpu()
    here = capability_name(gpu.capability)
    built = AMPERE_PLUS if options.hardware_compatibility == AMPERE_PLUS else here
    capability = named_capability(target)
    if target == CURRENT or (capability is not None and target_fits(built, capability)):
        return built, gpu
    raise InputError(
        f"target: {library.backend} builds on the GPU it will run on, which here is {gpu.name} ({here}), not "
        f"{target}; build there, or for GPUs that are not here with the backend tensorrt-rtx"
    )
