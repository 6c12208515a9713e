"""Which backend and target a build is for, and whether that can be built here."""

from ...errors import InputError
from ..device.cuda import Gpu, find_gpu
from ..ort.session import library as onnxruntime_library
from ..profiles import Limits
from ..targets import (
    AMPERE_PLUS,
    CPU,
    CURRENT,
    PORTABLE,
    BuildOptions,
    canonical_target,
    capability_name,
    named_capability,
    no_such_option,
    target_fits,
)
from ..trt.library import TENSORRT_BACKENDS, Library, load_library


def default_backend() -> str:
    """The first of tensorrt, tensorrt-rtx and onnxruntime that can build here.

    Raises:
        InputError: none can; the reason is ONNX Runtime's.
    """
    for backend in TENSORRT_BACKENDS:
        try:
            library = load_library(backend)
            if not library.builds_for_others:
                find_gpu()
            return backend
        except InputError:
            continue
    onnxruntime_library()
    return "onnxruntime"


def cpu_target(target: str | None, limits: Limits, options: BuildOptions) -> str:
    """The target of a build by ONNX Runtime.

    Raises:
        InputError: another one than the CPU, any option, or other limits than the usual ones are asked for.
    """
    options.refuse("onnxruntime", frozenset(options.asked()))
    for name, value in vars(limits).items():
        if value != getattr(Limits(), name):
            raise no_such_option(name, "onnxruntime")
    if target is not None and canonical_target(target) != CPU:
        raise InputError(
            f"target: onnxruntime builds for {CPU} only, not for {target!r}; leave the target out, "
            f"or use a backend of {', '.join(TENSORRT_BACKENDS)}"
        )
    return CPU


def gpu_target(library: Library, target: str | None, options: BuildOptions) -> tuple[str, Gpu | None]:
    """The target of a build by TensorRT or TensorRT-RTX, and the GPU that it is built on if it needs one.

    Raises:
        InputError: unknown target, one this library cannot build for here, or an option it lacks; or a GPU is
            needed and there is none.
    """
    library.check_options(options)
    usual = PORTABLE if library.builds_for_others else CURRENT
    wanted = canonical_target(usual if target is None else target)
    if wanted == CPU:
        raise InputError(
            f"target: {library.backend} builds for NVIDIA GPUs, not for the CPU; "
            "use the backend onnxruntime for that"
        )
    if library.builds_for_others:
        return _named_target(library, wanted)
    return _target_here(library, wanted, options)


def _named_target(library: Library, wanted: str) -> tuple[str, Gpu | None]:
    known = library.capabilities()
    if wanted == PORTABLE or wanted in known:
        return wanted, None
    refusal = InputError(
        f"target: {library.backend} {library.version} cannot name {wanted}; it knows {PORTABLE}, "
        f"{', '.join(known)} and {CURRENT}, which is the GPU in this machine"
    )
    if wanted == CURRENT:
        gpu = find_gpu()
        name = capability_name(gpu.capability)
        return name, (None if name in known else gpu)
    try:
        gpu = find_gpu()
    except InputError as error:
        raise refusal from error
    if named_capability(wanted) != gpu.capability:
        raise refusal
    return wanted, gpu


def _target_here(library: Library, wanted: str, options: BuildOptions) -> tuple[str, Gpu | None]:
    gpu = find_gpu()
    here = capability_name(gpu.capability)
    built = AMPERE_PLUS if options.hardware_compatibility == AMPERE_PLUS else here
    capability = named_capability(wanted)
    if wanted == CURRENT or (capability is not None and target_fits(built, capability)):
        return built, gpu
    raise InputError(
        f"target: {library.backend} builds on the GPU it will run on, which here is {gpu.name} ({here}), not "
        f"{wanted}; build there, or for GPUs that are not here with the backend tensorrt-rtx"
    )
