"""TensorRT's engines and execution contexts, made from plan files."""

import ctypes
import logging
import re
from pathlib import Path
from typing import Any

from ...errors import InputError
from ...files import is_file, read_file, replacing
from ...stages import BY_NAME
from ..device.protocol import out_of_memory
from .library import Library

# In the folder of the engines: the kernels that TensorRT-RTX compiled.
CACHE_FILE = "runtime.cache"

_logger = logging.getLogger(__name__)


class TensorRTContexts:
    """Makes engines and contexts with one library; every call needs the device to be active.

    The caller gives a context its working memory for each run: stages run in turn and can share it.
    """

    def __init__(self, library: Library, cache: Path, version_compatible: bool) -> None:
        """Start the runtime of `library`.

        `cache` is where TensorRT-RTX keeps the kernels that it compiles; TensorRT leaves it alone.
        `version_compatible` says how the plans were built: such a plan brings code for the host, which
        TensorRT runs only where it is allowed to.

        Raises:
            InputError: TensorRT does not start, for example because the driver is too old for it.
        """
        self._backend = library.backend
        self._module = library.module
        self._cache_file = cache
        self._cache: Any = None
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

    def load(self, plan: bytes, file: Path, rebuild: str) -> Any:
        """The engine of a plan; `file` and the command `rebuild` are named in errors.

        Raises:
            InputError: TensorRT refuses the plan, or the GPU has no room for its weights.
        """
        engine = self._runtime.deserialize_cuda_engine(plan)
        if engine is None:
            reason = self.reason()
            if is_out_of_memory(reason):
                raise out_of_memory(f"{file}: loading the weights", len(plan), None)
            raise InputError(
                f"{file}: {self._backend} cannot load it ({reason}); build it again with `{rebuild} --force`"
            )
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
        if not context.set_optimization_profile_async(profile, stream):
            raise RuntimeError(f"{self._backend} takes no profile {profile} of {stage}: {self.reason()}")
        return context

    def save_cache(self) -> None:
        """Write the kernels compiled so far to disk, if there are any; a failure is only logged."""
        if self._cache is None:
            return
        try:
            with replacing(self._cache_file) as temporary:
                temporary.write_bytes(bytes(self._cache.serialize()))
        except InputError as error:
            _logger.warning("compiled kernels are not kept: %s", error)

    def _rtx_config(self, engine: Any, stage: str, strategy: Any) -> Any:
        config = engine.create_runtime_config()
        config.set_execution_context_allocation_strategy(strategy)
        # The default starts with general kernels and swaps others in at some later moment: the same image
        # would be rounded differently, and a measured time would depend on when it was taken.
        specialization = self._module.DynamicShapesKernelSpecializationStrategy
        config.dynamic_shapes_kernel_specialization_strategy = (
            specialization.NONE if BY_NAME[stage].free_shapes else specialization.EAGER
        )
        if self._cache is None:
            self._cache = config.create_runtime_cache()
            if is_file(self._cache_file):
                # TensorRT-RTX checks that it fits this GPU, driver and version, and else starts anew.
                self._cache.deserialize(read_file(self._cache_file))
        config.set_runtime_cache(self._cache)
        return config

    def _not_started(self) -> InputError:
        return InputError(
            f"backend {self._backend}: it does not start ({self.reason()}); if the driver is too old for "
            "it, update the driver or install the build for an older CUDA, for example tensorrt-cu12"
        )


def is_out_of_memory(reason: str) -> bool:
    """Whether errors that TensorRT logged say that the GPU's memory is too small."""
    return re.search("out of memory|allocat", reason.lower()) is not None
