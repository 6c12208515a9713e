"""A module in the place of `tensorrt` or `tensorrt_rtx`: what a build calls, written down instead of done."""

import sys
from collections.abc import Callable, Sequence
from enum import IntEnum
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

from sed_trt.engines.trt.library import load_library

PLAN = b"a plan"


class Config:
    """An IBuilderConfig that remembers what was set; `TIMES` stands for measured kernel times."""

    TIMES = b"times"

    def __init__(self) -> None:
        self.flags: list[Any] = []
        self.cleared: list[Any] = []
        self.limits: dict[Any, int] = {}
        self.profiles: list[Any] = []
        self.capabilities: list[Any] = []
        self.known_times: list[bytes] = []

    def set_flag(self, flag: Any) -> None:
        self.flags.append(flag)

    def clear_flag(self, flag: Any) -> None:
        self.cleared.append(flag)

    def set_memory_pool_limit(self, pool: Any, size: int) -> None:
        self.limits[pool] = size

    def set_compute_capability(self, capability: Any, index: int) -> bool:
        self.capabilities.insert(index, capability)
        return True

    def add_optimization_profile(self, profile: Any) -> int:
        self.profiles.append(profile)
        return len(self.profiles) - 1

    def create_timing_cache(self, known: bytes) -> bytes | None:
        return None if known == b"damaged" else known

    def set_timing_cache(self, cache: bytes, ignore_mismatch: bool) -> bool:
        self.known_times.append(cache)
        return cache != b"of another GPU"

    def get_timing_cache(self) -> Any:
        return SimpleNamespace(serialize=lambda: self.TIMES)


def fake_tensorrt(
    version: str,
    capabilities: Sequence[str] = (),
    compatibility: Sequence[str] = ("NONE", "AMPERE_PLUS", "SAME_COMPUTE_CAPABILITY"),
    errors: Sequence[str] = (),
    build: Callable[[Any], bytes | None] = lambda config: PLAN,
) -> Any:
    """The module.

    Args:
        version: it claims to have.
        capabilities: members of ComputeCapability, for TensorRT-RTX.
        compatibility: members of HardwareCompatibilityLevel.
        errors: what its parser finds.
        build: called with the config in the place of a build.

    Its list `configs` has every config that was made.
    """
    module: Any = ModuleType("tensorrt")
    module.__version__ = version
    module.configs = []

    class ILogger:
        class Severity(IntEnum):
            INTERNAL_ERROR = 0
            ERROR = 1
            WARNING = 2

    class IProgressMonitor:
        pass

    class Parser:
        num_errors = len(errors)

        def __init__(self, network: Any, logger: Any) -> None:
            self.network = network

        def parse_from_file(self, path: str) -> bool:
            self.network.read = Path(path).read_bytes()
            return not errors

        def get_error(self, index: int) -> Any:
            return SimpleNamespace(
                node=lambda: index,
                node_name=lambda: f"node{index}",
                node_operator=lambda: "NonZero",
                desc=lambda: errors[index],
            )

    class Builder:
        def __init__(self, logger: Any) -> None:
            self.logger = logger

        def create_network(self, flags: int) -> Any:
            return SimpleNamespace(flags=flags, num_layers=0)

        def create_builder_config(self) -> Config:
            module.configs.append(Config())
            return module.configs[-1]

        def create_optimization_profile(self) -> Any:
            shapes: dict[str, Any] = {}
            return SimpleNamespace(shapes=shapes, set_shape=lambda name, *three: shapes.update({name: three}))

        def build_serialized_network(self, network: Any, config: Config) -> bytes | None:
            plan = build(config)
            if plan is None:
                self.logger.log(ILogger.Severity.WARNING, "a warning")
                self.logger.log(ILogger.Severity.ERROR, "no\ntactic")
            return plan

    def members(name: str, names: Sequence[str]) -> Any:
        return IntEnum(name, list(names))

    module.ILogger, module.IProgressMonitor = ILogger, IProgressMonitor
    module.Builder, module.OnnxParser = Builder, Parser
    module.NetworkDefinitionCreationFlag = members("NetworkDefinitionCreationFlag", ["STRONGLY_TYPED"])
    module.ProfilingVerbosity = members("ProfilingVerbosity", ["DETAILED"])
    module.MemoryPoolType = members("MemoryPoolType", ["WORKSPACE"])
    flags = ["VERSION_COMPATIBLE", "REFIT", "DISABLE_TIMING_CACHE", "TF32"]
    module.BuilderFlag = members("BuilderFlag", flags)
    module.HardwareCompatibilityLevel = members("HardwareCompatibilityLevel", compatibility)
    if capabilities:
        module.ComputeCapability = members("ComputeCapability", [*capabilities, "CURRENT", "NONE"])
    return module


def install_tensorrt(monkeypatch: Any, version: str = "11.4.0.106", **arguments: Any) -> Any:
    """Let full TensorRT be the module that `fake_tensorrt` makes, which is given back."""
    module = fake_tensorrt(version, **arguments)
    monkeypatch.setitem(sys.modules, "tensorrt", module)
    load_library.cache_clear()
    return module
