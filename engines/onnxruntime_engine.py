"""A stage run by ONNX Runtime on the CPU."""

from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from ..errors import InputError
from .bundle import Bundle, Stage
from .onnxruntime_memory import release_unused, share_arena

CPU_PROVIDER = "CPUExecutionProvider"
CUDA_PROVIDER = "CUDAExecutionProvider"


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
    """Whether the installed ONNX Runtime was built with CUDA; whether a GPU is there is a second question.

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
) -> Any:
    """A session for a graph; `file` is where it came from, `threads` bounds those within one operator.

    Where `optimised` is given, the graph is written there as ONNX Runtime optimises it for any CPU; where
    `profile` is, that is how the name of the file begins to which the session's `end_profiling` writes.

    Raises:
        InputError: ONNX Runtime is missing or broken, cannot load the graph, or cannot write it.
    """
    onnxruntime = library()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if threads is not None:
        options.intra_op_num_threads = threads
    # A bundle has eight sessions; the idle ones would otherwise spin and take cores from the busy one.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    share_arena(options)
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
        session = onnxruntime.InferenceSession(model, options, providers=providers)
    except Exception as error:
        # ONNX Runtime's exceptions share no base class of their own.
        reason = str(error).strip().splitlines()[0]
        raise InputError(
            f"{file}: ONNX Runtime {onnxruntime.__version__} cannot {cannot} it ({reason}); {remedy}"
        ) from error
    release_unused()
    return session


def check_runs_on_cpu(bundle: Bundle, *stages: Stage) -> None:
    """Refuse stages of bfloat16.

    Raises:
        InputError: a stage takes or gives it.
    """
    if any(tensor.dtype == "bfloat16" for stage in stages for tensor in (*stage.inputs, *stage.outputs)):
        raise InputError(
            f"{bundle.path}: is of bfloat16, and ONNX Runtime has no bfloat16 kernels for the CPU; "
            "export with --precision fp16 or fp32"
        )


class OnnxRuntimeEngine:
    """One stage in one session, shared by all threads."""

    def __init__(
        self, bundle: Bundle, stage: str, threads: int | None = None, optimised: bytes | None = None
    ) -> None:
        """Open the graph of `stage`, or what `sed-trt build` made of it, where that is given.

        `threads` are those within one operator, None for one per CPU core.

        Raises:
            InputError: ONNX Runtime is missing or broken, the file is missing or altered, ONNX Runtime
                cannot load it, or it is of bfloat16.
        """
        description = bundle.manifest.stages[stage]
        library()
        path = bundle.verified(description.file)
        check_runs_on_cpu(bundle, description)
        self._name = stage
        self._session = open_session(optimised or path, path, threads, [CPU_PROVIDER])
        self._outputs = [output.name for output in self._session.get_outputs()]

    @property
    def name(self) -> str:
        """Name of the stage."""
        return self._name

    def run(self, inputs: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """Run the stage; see `Engine.run`."""
        return dict(zip(self._outputs, self._session.run(self._outputs, dict(inputs)), strict=True))
