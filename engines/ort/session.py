"""ONNX Runtime: the installed package, and sessions that share their memory."""

import contextlib
import ctypes
import functools
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from ...bundle import Bundle, Stage
from ...errors import InputError
from ...stages import BY_NAME
from ..engine import check_signatures, signature

CPU_PROVIDER = "CPUExecutionProvider"
CUDA_PROVIDER = "CUDAExecutionProvider"
# First allocation of the shared arena, large enough for sed-b; pages that are never written take no memory.
ARENA_BYTES = 1 << 30
# ONNX Runtime's name for a dtype where it is not numpy's.
_TYPE_NAMES = {"float32": "float"}
# An operator of the 8-bit graphs of earlier versions.
_SCALED_BY_BATCH = b"MatMulInteger"


def library() -> ModuleType:
    """The package onnxruntime.

    Raises:
        InputError: it is missing or broken.
    """
    try:
        import onnxruntime

        # Uninstalling one of onnxruntime and onnxruntime-gpu can leave a folder that imports but is empty.
        onnxruntime.get_available_providers()
    except (ImportError, AttributeError) as error:
        raise InputError(
            f"onnxruntime: is missing or broken ({error}); pip uninstall -y onnxruntime onnxruntime-gpu, "
            "then in sed-trt's folder pip install -e '.[cpu]', or '.[gpu]' with an NVIDIA GPU"
        ) from error
    return onnxruntime


def cuda_offered() -> bool:
    """Whether the installed ONNX Runtime was built with CUDA, whether or not a GPU is there.

    Raises:
        InputError: ONNX Runtime is missing or broken.
    """
    return CUDA_PROVIDER in library().get_available_providers()


def open_session(
    model: Path | bytes,
    file: Path,
    threads: int | None,
    providers: list[Any],
    optimised: Path | None = None,
    profile: Path | None = None,
    shared_arena: bool = True,
) -> Any:
    """A session for a graph.

    Args:
        model: the graph.
        file: where it came from; named in errors.
        threads: bounds the threads within one operator; None is one per core.
        providers: of ONNX Runtime, in order of preference.
        optimised: where to write the graph as ONNX Runtime optimises it for any CPU.
        profile: start of the name of the file to which the session's `end_profiling` writes.
        shared_arena: whether it takes its memory where all sessions do; otherwise nobody else writes to it.

    Raises:
        InputError: ONNX Runtime is missing or broken, cannot load the graph, or cannot write it.
    """
    onnxruntime = library()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if threads is not None:
        options.intra_op_num_threads = threads
    # Each stage has a session; the idle ones would otherwise spin and take cores from the busy one.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if shared_arena:
        _share_arena(options)
    if providers != [CPU_PROVIDER]:
        # Weights are copied outside of the stream that orders all other use of the arena.
        options.add_session_config_entry("session.use_device_allocator_for_initializers", "1")
    if profile is not None:
        options.enable_profiling = True
        options.profile_file_prefix = str(profile)
    cannot, remedy = "load", "update onnxruntime or export the checkpoint again"
    if optimised is not None:
        cannot, remedy = "optimise", "free space, update onnxruntime or run the bundle as it is"
        options.optimized_model_filepath = str(optimised)
        # The next level ties the graph to the processor it was made on.
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    try:
        # By itself ONNX Runtime would print that a GPU failed, and run on the CPU.
        session = onnxruntime.InferenceSession(model, options, providers=providers, enable_fallback=0)
    except Exception as error:
        # ONNX Runtime's exceptions share no base class of their own.
        reason = str(error).strip().splitlines()[0]
        raise InputError(
            f"{file}: ONNX Runtime {onnxruntime.__version__} cannot {cannot} it ({reason}); {remedy}"
        ) from error
    _release_unused()
    return session


def check_session(session: Any, stage: Stage, file: Path) -> None:
    """Compare the inputs and outputs of a graph with the manifest's, apart from the names of dynamic axes.

    Args:
        session: of the graph.
        stage: as the manifest describes it.
        file: of the graph; named in errors.

    Raises:
        InputError: they differ.
    """
    for side, values, tensors in (
        ("inputs", session.get_inputs(), stage.inputs),
        ("outputs", session.get_outputs(), stage.outputs),
    ):
        actual = [signature(value.name, value.type, value.shape) for value in values]
        stated = [
            signature(tensor.name, f"tensor({_TYPE_NAMES.get(tensor.dtype, tensor.dtype)})", tensor.shape)
            for tensor in tensors
        ]
        check_signatures(file, side, actual, stated)


def check_runs_on_cpu(bundle: Bundle, *stages: Stage) -> None:
    """Refuse stages of bfloat16.

    Raises:
        InputError: an input or output of a stage is of bfloat16.
    """
    if any(tensor.dtype == "bfloat16" for stage in stages for tensor in (*stage.inputs, *stage.outputs)):
        raise InputError(
            f"{bundle.path}: is of bfloat16, and ONNX Runtime has no bfloat16 kernels for the CPU; use the "
            "backend openvino (in sed-trt's folder, pip install -e '.[cpu]'), or export with "
            "--precision fp16 or fp32"
        )


def check_eight_bit(bundle: Bundle) -> None:
    """Refuse an 8-bit bundle of earlier versions, whose scales follow from the images of a batch.

    An image's labels would depend on the others, and OpenVINO would compute its products in FP32.

    Raises:
        InputError: it is one, or a graph is missing or altered.
    """
    if bundle.manifest.precision != "int8":
        return
    for name, stage in bundle.manifest.stages.items():
        if BY_NAME[name].int8_reason and _SCALED_BY_BATCH in bundle.verified(stage.file).read_bytes():
            raise InputError(
                f"{bundle.path / stage.file}: its 8-bit products are those of an earlier version, scaled by "
                "the images at hand; export the checkpoint again with --precision int8"
            )


def _share_arena(options: Any) -> None:
    """Let a session with these options take its memory from one arena that the whole process shares.

    Otherwise each stage keeps an arena as large as its largest run, although the stages run in turn. Memory
    patterns are off because ONNX Runtime would allocate one more block for each shape that comes a second
    time, which doubles the memory and slows down the second image.
    """
    _register_arena()
    options.add_session_config_entry("session.use_env_allocators", "1")
    options.enable_mem_pattern = False


@functools.cache
def _register_arena() -> None:
    onnxruntime = library()
    # Some versions refuse a second one; that of the program around us serves as well.
    with contextlib.suppress(Exception):
        onnxruntime.create_and_register_allocator(
            _arena_of("Cpu"), onnxruntime.OrtArenaCfg({"initial_chunk_size_bytes": ARENA_BYTES})
        )


@functools.cache
def register_cuda_arena() -> None:
    """Let all sessions on the GPU take their memory from one arena too; they must use one stream."""
    onnxruntime = library()
    # It grows by what is asked for, not to twice its size.
    options = {"arena_extend_strategy": "kSameAsRequested"}
    with contextlib.suppress(Exception):
        onnxruntime.create_and_register_allocator_v2(
            CUDA_PROVIDER, _arena_of("Cuda"), options, onnxruntime.OrtArenaCfg({"arena_extend_strategy": 1})
        )


def _arena_of(device: str) -> Any:
    """ONNX Runtime's description of an arena in the memory of a device."""
    onnxruntime = library()
    return onnxruntime.OrtMemoryInfo(
        device, onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, onnxruntime.OrtMemType.DEFAULT
    )


def _release_unused() -> None:
    """Give back to the system what loading a graph took and freed, where the C library can do so."""
    if sys.platform == "linux":
        with contextlib.suppress(AttributeError):
            ctypes.CDLL(None).malloc_trim(0)
