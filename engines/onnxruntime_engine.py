"""A stage run by ONNX Runtime, on the CPU or through its CUDA provider."""

from collections.abc import Mapping, Sequence
from types import ModuleType

import numpy as np

from ..errors import InputError
from .bundle import Bundle

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
            f"onnxruntime: is missing or broken ({error}); pip install --force-reinstall --no-deps "
            "onnxruntime, or onnxruntime-gpu with an NVIDIA GPU"
        ) from error
    return onnxruntime


def cuda_offered() -> bool:
    """Whether the installed ONNX Runtime was built with CUDA; whether a GPU is there is a second question.

    Raises:
        InputError: ONNX Runtime is missing or broken.
    """
    return CUDA_PROVIDER in library().get_available_providers()


class OnnxRuntimeEngine:
    """One stage in one session, shared by all threads."""

    def __init__(self, bundle: Bundle, stage: str, cuda: bool = False, threads: int | None = None) -> None:
        """Open the graph of `stage`; `threads` are those within one operator, None for one per CPU core.

        Raises:
            InputError: ONNX Runtime is missing or broken, the file is missing or altered, ONNX Runtime
                cannot load it, or `cuda` is asked for and CUDA does not start.
        """
        onnxruntime = library()
        self._name = stage
        path = bundle.verified(bundle.manifest.stages[stage].file)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        if threads is not None:
            options.intra_op_num_threads = threads
        # A bundle has eight sessions; the idle ones would otherwise spin and take cores from the busy one.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        providers: Sequence[str] = (CUDA_PROVIDER, CPU_PROVIDER) if cuda else (CPU_PROVIDER,)
        try:
            self._session = onnxruntime.InferenceSession(path, options, providers=list(providers))
        except Exception as error:
            # ONNX Runtime's exceptions share no base class of their own.
            reason = str(error).strip().splitlines()[0]
            raise InputError(
                f"{path}: ONNX Runtime {onnxruntime.__version__} cannot load it ({reason}); "
                "update onnxruntime or export the checkpoint again"
            ) from error
        if cuda and CUDA_PROVIDER not in self._session.get_providers():
            raise InputError(
                "backend onnxruntime-cuda: CUDA did not start, expected an NVIDIA GPU, its driver and cuDNN; "
                "use the backend onnxruntime or see `sed-trt doctor`"
            )
        self._outputs = [output.name for output in self._session.get_outputs()]

    @property
    def name(self) -> str:
        """Name of the stage."""
        return self._name

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Run the stage; see `Engine.run`."""
        return dict(zip(self._outputs, self._session.run(self._outputs, dict(inputs)), strict=True))
