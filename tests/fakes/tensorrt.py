"""A module in the place of `tensorrt` or `tensorrt_rtx`: its builder does nothing, its runtime is numpy.

A build is written down instead of done. The runtime runs the stages of `fakes.engines` in the memory of a
`FakeDevice`.
"""

import json
import sys
from collections.abc import Callable, Sequence
from enum import IntEnum, IntFlag
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np

from sed_trt.engines.trt.library import load_library
from sed_trt.tests.fakes.device import GARBAGE, FakeDevice
from sed_trt.tests.fakes.engines import STAGES
from sed_trt.tests.fakes.manifest import fake_manifest

PLAN = b"a plan"
# Bytes of working memory that every context asks for.
SCRATCH = 1000
# The layers that the inspector reports by data type.
LAYERS = {"HALF": 2, "FLOAT": 2}


def fake_tensorrt(
    version: str = "11.0",
    capabilities: Sequence[str] = (),
    compatibility: Sequence[str] = ("NONE", "AMPERE_PLUS", "SAME_COMPUTE_CAPABILITY"),
    errors: Sequence[str] = (),
    build: Callable[[Any], bytes | None] = lambda config: PLAN,
    device: FakeDevice | None = None,
    previews: Sequence[str] = ("RUNTIME_ACTIVATION_RESIZE_10_10",),
) -> Any:
    """The module.

    Args:
        version: it claims to have.
        capabilities: members of ComputeCapability, for TensorRT-RTX.
        compatibility: members of HardwareCompatibilityLevel.
        errors: what its parser reports.
        build: called with the config in the place of a build.
        device: that its runtime uses; None leaves the runtime out.
        previews: members of PreviewFeature.

    Its list `configs` has every config that a build made. Its list `caches` has the caches that the runtime
    made, `runtime_configs` its configurations by stage, and `contexts` all contexts. `diagnostics` is what
    the runtime says of a plan that it refused.
    """
    module: Any = ModuleType("tensorrt")
    module.__version__ = version
    module.ILogger = ILogger
    _add_builder(module, capabilities, compatibility, errors, build)
    module.PreviewFeature = members("PreviewFeature", previews)
    if device is not None:
        _add_runtime(module, device)
    return module


def install_tensorrt(monkeypatch: Any, version: str = "11.4.0.106", **arguments: Any) -> Any:
    """Let full TensorRT be the module that `fake_tensorrt` makes, which is returned."""
    module = fake_tensorrt(version, **arguments)
    monkeypatch.setitem(sys.modules, "tensorrt", module)
    load_library.cache_clear()
    return module


class ILogger:
    """The base class of loggers."""

    class Severity(IntEnum):
        """As in TensorRT."""

        INTERNAL_ERROR = 0
        ERROR = 1
        WARNING = 2


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
        self.previews: list[Any] = []

    def set_flag(self, flag: Any) -> None:
        self.flags.append(flag)

    def clear_flag(self, flag: Any) -> None:
        self.cleared.append(flag)

    def set_memory_pool_limit(self, pool: Any, size: int) -> None:
        self.limits[pool] = size

    def set_compute_capability(self, capability: Any, index: int) -> bool:
        self.capabilities.insert(index, capability)
        return True

    def set_preview_feature(self, feature: Any, enable: bool) -> None:
        if enable:
            self.previews.append(feature)

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


def members(name: str, names: Sequence[str]) -> Any:
    """An enumeration."""
    return IntEnum(name, list(names))


def _add_builder(
    module: Any,
    capabilities: Sequence[str],
    compatibility: Sequence[str],
    errors: Sequence[str],
    build: Callable[[Any], bytes | None],
) -> None:
    module.configs = []

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

    module.IProgressMonitor, module.Builder, module.OnnxParser = IProgressMonitor, Builder, Parser
    module.NetworkDefinitionCreationFlag = members("NetworkDefinitionCreationFlag", ["STRONGLY_TYPED"])
    module.ProfilingVerbosity = members("ProfilingVerbosity", ["DETAILED"])
    module.MemoryPoolType = members("MemoryPoolType", ["WORKSPACE"])
    flags = ["VERSION_COMPATIBLE", "REFIT", "DISABLE_TIMING_CACHE", "TF32"]
    module.BuilderFlag = members("BuilderFlag", flags)
    module.HardwareCompatibilityLevel = members("HardwareCompatibilityLevel", compatibility)
    if capabilities:
        module.ComputeCapability = members("ComputeCapability", [*capabilities, "CURRENT", "NONE"])


class Context:
    """An IExecutionContext that runs a stage of `STAGES` on the device's memory."""

    def __init__(self, device: FakeDevice, stage: str, cache: "RuntimeCache | None") -> None:
        self.device = device
        self.stage = stage
        self.cache = cache
        # A graph that was captured from a context is void when the context changes.
        self.captured = False
        self.ran = False
        self.profile: int | None = None
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.addresses: dict[str, int] = {}
        self.scratch: tuple[int, int] | None = None
        self._description = fake_manifest().stages.get(stage)

    def set_optimization_profile_async(self, profile: int, stream: int) -> bool:
        assert stream == self.device.stream
        assert not self.captured
        self.profile = profile
        return True

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        assert self.profile is not None
        assert not self.captured
        self.shapes[name] = shape
        self.scratch, self.ran = None, False
        return True

    def set_tensor_address(self, name: str, pointer: int) -> bool:
        assert pointer % 256 == 0
        assert not self.captured
        self.addresses[name] = pointer
        return True

    def infer_shapes(self) -> list[str]:
        assert self._description is not None
        return [tensor.name for tensor in self._description.inputs if tensor.name not in self.shapes]

    def get_tensor_shape(self, name: str) -> list[int]:
        assert self._description is not None
        inputs = {
            tensor.name: np.zeros(self.shapes[tensor.name], tensor.dtype)
            for tensor in self._description.inputs
        }
        return list(STAGES[self.stage](inputs)[name].shape)

    def update_device_memory_size_for_shapes(self) -> int:
        return SCRATCH

    def set_device_memory(self, pointer: int, size: int) -> None:
        assert size >= SCRATCH
        self.scratch = (pointer, size)

    def execute_async_v3(self, stream: int) -> bool:
        assert stream == self.device.stream
        assert self.scratch is not None
        assert self._description is not None
        description = self._description
        shapes, addresses, scratch = dict(self.shapes), dict(self.addresses), self.scratch
        if self.cache is not None:
            self.cache.kernels.add((self.stage, *shapes.values()))

        def note() -> None:
            uploaded = [
                tensor.name for tensor in description.inputs if addresses[tensor.name] in self.device.fresh
            ]
            self.device.fresh.clear()
            self.device.names = {addresses[tensor.name]: tensor.name for tensor in description.outputs}
            self.device.log.append(("run", self.stage, self.profile, uploaded))

        self.device.note(note)
        assert self.ran or not self.device.is_capturing, "the first execution sets up the context"
        self.ran = True
        self.captured |= self.device.is_capturing

        def run() -> None:
            inputs = {}
            for tensor in description.inputs:
                size = int(np.prod(shapes[tensor.name])) * np.dtype(tensor.dtype).itemsize
                part = self.device.view(addresses[tensor.name], size)
                inputs[tensor.name] = part.view(tensor.dtype).reshape(shapes[tensor.name]).copy()
            outputs = STAGES[self.stage](inputs)
            self.device.view(*scratch)[:] = GARBAGE
            for tensor in description.outputs:
                content = np.ascontiguousarray(outputs[tensor.name].astype(tensor.dtype))
                memory = self.device.view(addresses[tensor.name], content.nbytes)
                memory[:] = content.reshape(-1).view(np.uint8)

        self.device.enqueue(run)
        return True


class Inspector:
    """An EngineInspector that reports `LAYERS`."""

    def __init__(self) -> None:
        self.execution_context: Context | None = None

    def get_engine_information(self, form: str) -> str:
        assert form == "JSON"
        context = self.execution_context
        assert context is not None and context.shapes
        types = [dtype for dtype, count in LAYERS.items() for _ in range(count)]
        return json.dumps({"Layers": [{"Outputs": [{"DataType": dtype}]} for dtype in types]})


class EngineValidity(IntEnum):
    """As in TensorRT-RTX."""

    VALID = 0
    INVALID = 2


class EngineInvalidityDiagnostics(IntFlag):
    """Some of those of TensorRT-RTX."""

    VERSION_MISMATCH = 1
    UNSUPPORTED_CC = 2
    OLD_CUDA_DRIVER = 4
    INSUFFICIENT_GPU_MEMORY = 16


class RuntimeCache:
    """TensorRT-RTX's store of compiled kernels."""

    def __init__(self) -> None:
        self.loaded = b""
        self.kernels: set[Any] = set()
        self.serialized = 0

    def deserialize(self, content: bytes) -> bool:
        self.loaded = content
        return True

    def serialize(self) -> bytes:
        self.serialized += 1
        known = set(self.loaded.decode().splitlines())
        return "\n".join(sorted(known | {str(kernel) for kernel in self.kernels})).encode()


class RuntimeConfig:
    """TensorRT-RTX's runtime configuration."""

    def __init__(self, caches: list[RuntimeCache]) -> None:
        self.caches = caches
        self.cache: RuntimeCache | None = None
        self.strategy: object = None
        self.dynamic_shapes_kernel_specialization_strategy: object = None
        self.cuda_graph_strategy: object = None

    def set_execution_context_allocation_strategy(self, strategy: object) -> None:
        self.strategy = strategy

    def create_runtime_cache(self) -> RuntimeCache:
        self.caches.append(RuntimeCache())
        return self.caches[-1]

    def set_runtime_cache(self, cache: RuntimeCache) -> bool:
        self.cache = cache
        return True


def _add_runtime(module: Any, device: FakeDevice) -> None:
    """Add the runtime; a plan is the name of its stage, or "refused: REASON"."""
    module.caches = []
    module.runtime_configs = {}
    module.contexts = []
    module.diagnostics = 0

    class Engine:
        def __init__(self, stage: str) -> None:
            self.stage = stage

        def create_runtime_config(self) -> RuntimeConfig:
            config = RuntimeConfig(module.caches)
            module.runtime_configs[self.stage] = config
            return config

        def create_engine_inspector(self) -> Inspector:
            return Inspector()

        def create_execution_context(self, how: object) -> Context:
            strategy = how.strategy if isinstance(how, RuntimeConfig) else how
            assert strategy == "USER_MANAGED"
            context = Context(device, self.stage, how.cache if isinstance(how, RuntimeConfig) else None)
            module.contexts.append(context)
            return context

    class Runtime:
        def __init__(self, logger: Any) -> None:
            self.logger = logger

        def deserialize_cuda_engine(self, plan: bytes) -> Engine | None:
            device.check_active()
            stage = plan.decode()
            if stage.startswith("refused: "):
                self.logger.log(ILogger.Severity.WARNING, "only a warning")
                self.logger.log(ILogger.Severity.ERROR, stage)
                return None
            return Engine(stage)

        def get_engine_validity(self, plan: bytes) -> tuple[Any, int]:
            return module.EngineValidity.INVALID, module.diagnostics

    # By the names of the real classes, so that a test can compare their methods with the real ones.
    module.Runtime, module.ICudaEngine, module.IExecutionContext = Runtime, Engine, Context
    module.EngineInspector, module.IRuntimeConfig = Inspector, RuntimeConfig
    module.IRuntimeCache = RuntimeCache
    module.ExecutionContextAllocationStrategy = SimpleNamespace(USER_MANAGED="USER_MANAGED")
    module.DynamicShapesKernelSpecializationStrategy = SimpleNamespace(EAGER="EAGER", NONE="NONE")
    module.CudaGraphStrategy = SimpleNamespace(WHOLE_GRAPH_CAPTURE="WHOLE_GRAPH_CAPTURE")
    module.EngineValidity, module.EngineInvalidityDiagnostics = EngineValidity, EngineInvalidityDiagnostics
    module.LayerInformationFormat = SimpleNamespace(JSON="JSON")
