"""TensorRT's engines and execution contexts, made from plans, and the kernels that TensorRT-RTX compiled."""

import ctypes
import logging
import re
import time
from collections.abc import Hashable
from pathlib import Path
from typing import Any

from ...errors import InputError
from ...files import is_file, read_file, replacing
from ...stages import BY_NAME
from ..device.protocol import out_of_memory
from .library import Library

# In the folder of the engines: the kernels that TensorRT-RTX compiled.
CACHE_FILE = "runtime.cache"
# New kernels are written at most so often while images come: the process may be killed at any moment.
SAVE_SECONDS = 60.0

_logger = logging.getLogger(__name__)


class TensorRTContexts:
    """Makes engines and contexts with one library; every call needs the device to be active.

    The caller gives a context its working memory for each run: stages run in turn and can share it.
    """

    def __init__(
        self, library: Library, cache: Path, version_compatible: bool, cuda_graphs: bool = False
    ) -> None:
        """Start the runtime of `library`.

        `cache` is where TensorRT-RTX keeps the kernels that it compiles; TensorRT leaves it alone.
        `version_compatible` says how the plans were built: such a plan brings code for the host, which
        TensorRT runs only where it is allowed to. `cuda_graphs` lets TensorRT-RTX capture its work in CUDA
        graphs by itself; TensorRT leaves that to the caller.

        Raises:
            InputError: TensorRT does not start, for example because the driver is too old for it.
        """
        self._backend = library.backend
        self._module = library.module
        self._cuda_graphs = cuda_graphs
        self._cache_file = cache
        self._cache: Any = None
        # What ran before: stages and shapes compile kernels when they run for the first time.
        self._compiled: set[Hashable] = set()
        self._unsaved = False
        self._saved = b""
        self._saved_at = time.monotonic()
        self._log = library.logger()
        try:
            runtime = self._module.Runtime(self._log)
        except TypeError as error:
            # What pybind11 makes of a null pointer.
            raise self._not_started() from error
        if self._log.errors:
            # TensorRT hands out a runtime that failed to start, and crashes the process when it is destroyed.
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(runtime))
            raise self._not_started()
        if version_compatible:
            runtime.engine_host_code_allowed = True
        self._runtime = runtime

    def reason(self) -> str:
        """The errors that the library logged since the last call, as one phrase."""
        errors = "; ".join(self._log.errors) or "no reason given"
        self._log.errors.clear()
        return errors

    def has_errors(self) -> bool:
        """Whether the library logged errors since the last call of `reason`."""
        return bool(self._log.errors)

    def load(self, plan: bytes, file: Path, rebuild: str) -> Any:
        """The engine of a plan; `file` and the command `rebuild` are named in errors.

        Raises:
            InputError: TensorRT refuses the plan, or the GPU has no room for its weights.
        """
        engine = self._runtime.deserialize_cuda_engine(plan)
        if engine is None:
            raise self._refused(plan, file, rebuild)
        return engine

    def context(self, engine: Any, stage: str, profile: int, stream: int) -> Any:
        """A new execution context of `engine` for one of its optimization profiles.

        Raises:
            InputError: the GPU has no room for it.
            RuntimeError: TensorRT fails in another way.
        """
        strategy = self._module.ExecutionContextAllocationStrategy.USER_MANAGED
        if self._backend == "tensorrt-rtx":
            context = engine.create_execution_context(self._rtx_config(engine, stage, strategy))
        else:
            context = engine.create_execution_context(strategy)
        if context is None:
            reason = self.reason()
            if is_out_of_memory(reason):
                raise out_of_memory(f"stage {stage}", None, None)
            raise RuntimeError(f"{self._backend} makes no context for the stage {stage}: {reason}")
        try:
            context.set_optimization_profile_async(profile, stream)
        except RuntimeError as error:
            # TensorRT's Python raises where its C++ returns false, and tells the reason to the log alone.
            reason = self.reason()
            if is_out_of_memory(reason):
                raise out_of_memory(f"stage {stage}", None, None) from error
            raise RuntimeError(
                f"{self._backend} takes no profile {profile} of the stage {stage}: {reason}"
            ) from error
        return context

    def executed(self, work: Hashable) -> None:
        """Note that the stage and shapes `work` ran; now and then, write new kernels to disk."""
        if self._cache is None:
            return
        if work not in self._compiled:
            self._compiled.add(work)
            self._unsaved = True
        if self._unsaved and time.monotonic() - self._saved_at >= SAVE_SECONDS:
            self.save_cache()

    def save_cache(self) -> None:
        """Write the kernels compiled so far to disk, if there are new ones; a failure is only logged."""
        if not self._unsaved:
            return
        content = bytes(self._cache.serialize())
        self._unsaved, self._saved_at = False, time.monotonic()
        if content == self._saved:
            return
        try:
            with replacing(self._cache_file) as temporary:
                temporary.write_bytes(content)
        except InputError as error:
            _logger.warning("compiled kernels are not kept: %s", error)
        else:
            self._saved = content

    def close(self) -> None:
        """End the runtime and its cache; engines and contexts have ended, and the device is still there."""
        del self._cache, self._runtime

    def _rtx_config(self, engine: Any, stage: str, strategy: Any) -> Any:
        config = engine.create_runtime_config()
        config.set_execution_context_allocation_strategy(strategy)
        # The default starts with general kernels and swaps others in at some later moment: the same image
        # would be rounded differently, and a measured time would depend on when it was taken.
        specialization = self._module.DynamicShapesKernelSpecializationStrategy
        config.dynamic_shapes_kernel_specialization_strategy = (
            specialization.NONE if BY_NAME[stage].free_shapes else specialization.EAGER
        )
        # A graph of shapes that rarely come again costs more than it gains.
        if self._cuda_graphs and not BY_NAME[stage].free_shapes:
            config.cuda_graph_strategy = self._module.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
        if self._cache is None:
            self._cache = config.create_runtime_cache()
            if is_file(self._cache_file):
                # TensorRT-RTX checks that it fits this GPU, driver and version, and else starts anew.
                self._saved = read_file(self._cache_file)
                self._cache.deserialize(self._saved)
        config.set_runtime_cache(self._cache)
        return config

    def _refused(self, plan: bytes, file: Path, rebuild: str) -> InputError:
        reason = self.reason()
        problems = self._invalidity(plan)
        if is_out_of_memory(reason) or "INSUFFICIENT_GPU_MEMORY" in problems:
            return out_of_memory(f"{file}: loading the weights", len(plan), None)
        why = f"{file}: {self._backend} cannot load it ({'; '.join([reason, *sorted(problems)])})"
        if "UNSUPPORTED_CC" in problems:
            return InputError(
                f"{why}: it is for other GPUs than this one; build it here with `--target current`, or use "
                "the backend tensorrt or onnxruntime-cuda"
            )
        if problems & {"OLD_CUDA_DRIVER", "OLD_CUDA_RUNTIME"}:
            return InputError(f"{why}: the CUDA of this machine is too old for it; update the driver")
        return InputError(f"{why}; build it again with `{rebuild} --force`")

    def _invalidity(self, plan: bytes) -> frozenset[str]:
        """What the library has against a plan that it refused, by its own names, where it can say."""
        ask = getattr(self._runtime, "get_engine_validity", None)
        if ask is None:
            return frozenset()
        _, diagnostics = ask(plan)
        self._log.errors.clear()
        members = self._module.EngineInvalidityDiagnostics.__members__
        return frozenset(name for name, member in members.items() if int(diagnostics) & int(member))

    def _not_started(self) -> InputError:
        return InputError(
            f"backend {self._backend}: it does not start ({self.reason()}); if the driver is too old for "
            "it, update the driver or install the build for an older CUDA, for example tensorrt-cu12"
        )


def is_out_of_memory(reason: str) -> bool:
    """Whether errors that TensorRT logged say that the GPU's memory is too small."""
    return re.search("out of memory|allocat", reason.lower()) is not None
