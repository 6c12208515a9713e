"""TensorRT and TensorRT-RTX: which is installed, and everything in which they and their versions differ."""

import importlib
import os
import re
from dataclasses import dataclass, field
from functools import lru_cache
from types import ModuleType
from typing import Any

from ...errors import InputError
from ..device.gpu import Gpu
from ..targets import (
    ANY_TARGET,
    CURRENT,
    PORTABLE,
    TENSORRT_BACKENDS,
    BuildOptions,
    Capability,
    capability_name,
    named_capability,
)


@dataclass(frozen=True)
class _Package:
    """How a library is imported and installed, and the versions this code is written for.

    Attributes:
        module: its Python module.
        min_version: first one that works.
        below: first one that does not.
        extra: of sed-trt that installs it.
        missing: the options of `BuildOptions` that it does not have.
    """

    module: str
    min_version: tuple[int, ...]
    below: tuple[int, ...]
    extra: str
    missing: frozenset[str]

    def requirement(self, name: str) -> str:
        """The versions as pip writes them."""
        return f"{name}>={_dotted(self.min_version)},<{_dotted(self.below)}"


_PACKAGES = {
    "tensorrt": _Package("tensorrt", (10, 3), (12,), "tensorrt", frozenset()),
    # Its timing cache does nothing, and compatibility is what its own targets say.
    "tensorrt-rtx": _Package(
        "tensorrt_rtx",
        (1, 4),
        (2,),
        "rtx",
        frozenset({"timing_cache", "hardware_compatibility", "version_compatible", "refit"}),
    ),
}


@dataclass(frozen=True)
class Library:
    """One of the two libraries, loaded.

    Attributes:
        backend: "tensorrt" or "tensorrt-rtx".
        module: its Python module.
        version: as the module says, for example "10.13.3.9".
    """

    backend: str
    module: ModuleType = field(repr=False)
    version: str

    @property
    def builds_for_others(self) -> bool:
        """Whether engines can be built for a GPU that is not in this machine."""
        return self.backend == "tensorrt-rtx"

    @property
    def has_timing_cache(self) -> bool:
        """Whether measured kernel times can be kept for the next build."""
        return "timing_cache" not in _PACKAGES[self.backend].missing

    def capabilities(self) -> tuple[str, ...]:
        """The compute capabilities that can be named as a target, "sm86" and the like, ascending."""
        if not self.builds_for_others:
            return ()
        names = [name.lower() for name in self.module.ComputeCapability.__members__ if name.startswith("SM")]
        return tuple(sorted(names, key=lambda name: int(name[2:])))

    @property
    def known_capabilities(self) -> frozenset[Capability]:
        """The compute capabilities that this version was made for, where it names them."""
        named = (named_capability(name) for name in self.capabilities())
        return frozenset(capability for capability in named if capability is not None)

    def check_gpu(self, gpu: Gpu) -> None:
        """Refuse a GPU that this version was not made for: it runs no engines, whatever they were built for.

        Raises:
            InputError: it is one of those.
        """
        known = not self.builds_for_others or gpu.capability in self.known_capabilities
        if known or ANY_TARGET in os.environ:
            return
        raise InputError(
            f"backend {self.backend}: version {self.version} knows {', '.join(self.capabilities())} only, "
            f"and this GPU, {gpu.name}, is {capability_name(gpu.capability)}; use the backend tensorrt or "
            "onnxruntime-cuda, or a later version of it"
        )

    def logger(self) -> Any:
        """A logger for this library, `ILogger`, that prints nothing and keeps errors in its list `errors`."""
        module = self.module

        class Logger(module.ILogger):  # type: ignore[name-defined]
            def __init__(self) -> None:
                super().__init__()
                self.errors: list[str] = []

            def log(self, severity: Any, message: str) -> None:
                if severity in (module.ILogger.Severity.ERROR, module.ILogger.Severity.INTERNAL_ERROR):
                    self.errors.append(" ".join(message.split()))

        return Logger()

    def create_network(self, builder: Any) -> Any:
        """An empty strongly typed network; TensorRT 11 knows no other kind and ignores the flag."""
        return builder.create_network(1 << int(self.module.NetworkDefinitionCreationFlag.STRONGLY_TYPED))

    def check_options(self, options: BuildOptions) -> None:
        """Refuse options that this library or this version does not have.

        Raises:
            InputError: one is chosen.
        """
        options.refuse(self.backend, _PACKAGES[self.backend].missing)
        if options.hardware_compatibility is not None:
            self._compatibility_level(options.hardware_compatibility)

    def configure(self, config: Any, options: BuildOptions, target: str) -> None:
        """Set options and target on an `IBuilderConfig`; it keeps its defaults for options that are None."""
        module = self.module
        # Without it the engine inspector knows only the names of the layers.
        config.profiling_verbosity = module.ProfilingVerbosity.DETAILED
        # On by default; what the graphs say is float32 must be.
        config.clear_flag(module.BuilderFlag.TF32)
        # Without it the working memory of an engine is that of the largest shapes of its profile.
        resize = module.PreviewFeature.__members__.get("RUNTIME_ACTIVATION_RESIZE_10_10")
        if resize is not None:
            config.set_preview_feature(resize, True)
        if options.workspace is not None:
            config.set_memory_pool_limit(module.MemoryPoolType.WORKSPACE, options.workspace)
        if options.optimization_level is not None:
            config.builder_optimization_level = options.optimization_level
        if options.hardware_compatibility is not None:
            config.hardware_compatibility_level = self._compatibility_level(options.hardware_compatibility)
        if options.version_compatible:
            config.set_flag(module.BuilderFlag.VERSION_COMPATIBLE)
        if options.refit:
            config.set_flag(module.BuilderFlag.REFIT)
        if self.has_timing_cache and options.timing_cache is False:
            config.set_flag(module.BuilderFlag.DISABLE_TIMING_CACHE)
        if self.builds_for_others and target != PORTABLE:
            config.num_compute_capabilities = 1
            config.set_compute_capability(self._capability(target), 0)

    def _capability(self, target: str) -> Any:
        members = self.module.ComputeCapability.__members__
        # A GPU whose capability has no name of its own can be built for where it is.
        return members.get(target.upper(), members[CURRENT.upper()])

    def _compatibility_level(self, name: str) -> Any:
        member = {"ampere-plus": "AMPERE_PLUS", "same-capability": "SAME_COMPUTE_CAPABILITY"}[name]
        members = self.module.HardwareCompatibilityLevel.__members__
        if member not in members:
            raise InputError(
                f"hardware compatibility: {self.backend} {self.version} has no {name!r}; "
                f"use ampere-plus or a later version: pip install -U {self.backend}"
            )
        return members[member]


@lru_cache
def load_library(backend: str) -> Library:
    """The library of a backend of `TENSORRT_BACKENDS`, loaded once per process.

    Raises:
        InputError: it is not installed, is broken, or its version is outside the range this code is for.
    """
    if backend not in _PACKAGES:
        raise InputError(f"backend: {backend!r} is unknown; choose one of {', '.join(TENSORRT_BACKENDS)}")
    package = _PACKAGES[backend]
    install = f"pip install '{package.requirement(backend)}'"
    try:
        module = importlib.import_module(package.module)
        version = str(module.__version__)
    except ModuleNotFoundError as error:
        raise InputError(
            f"backend {backend}: the package {error.name!r} is not installed; {install}, "
            f"or in sed-trt's folder, pip install -e '.[{package.extra}]'"
        ) from error
    except (ImportError, OSError, RuntimeError, AttributeError) as error:
        raise InputError(
            f"backend {backend}: the package {package.module!r} is broken ({error}); "
            f"{install} --force-reinstall"
        ) from error
    numbers = tuple(int(number) for number in re.findall(r"\d+", version)[:2])
    if not package.min_version <= numbers < package.below:
        raise InputError(
            f"backend {backend}: version {version} is installed, expected at least "
            f"{_dotted(package.min_version)} and below {_dotted(package.below)}; {install}"
        )
    return Library(backend, module, version)


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(str(number) for number in version)
