"""The runtime of TensorRT and TensorRT-RTX in numpy, on a `FakeDevice`."""

import json
from enum import IntEnum
from types import SimpleNamespace
from typing import Any

import numpy as np

from sed_trt.tests.fakes.device import GARBAGE, FakeDevice
from sed_trt.tests.fakes.engines import STAGES
from sed_trt.tests.fakes.manifest import fake_manifest

SCRATCH = 1000
# What the inspector says of a context that knows its shapes: half the layers in half precision.
LAYERS = {"HALF": 2, "FLOAT": 2}


class Severity(IntEnum):
    """As in TensorRT."""

    INTERNAL_ERROR = 0
    ERROR = 1
    WARNING = 2


class FakeLogger:
    """The base class of loggers."""

    Severity = Severity


class FakeContext:
    """Runs a stage of `STAGES` on the device's memory."""

    def __init__(self, device: FakeDevice, stage: str) -> None:
        self.device = device
        self.stage = stage
        self.profile: int | None = None
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.addresses: dict[str, int] = {}
        self.scratch: tuple[int, int] | None = None

    def set_optimization_profile_async(self, profile: int, stream: int) -> bool:
        assert stream == self.device.stream
        self.profile = profile
        return True

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        assert self.profile is not None
        self.shapes[name] = shape
        return True

    def set_tensor_address(self, name: str, pointer: int) -> bool:
        assert pointer % 256 == 0
        self.addresses[name] = pointer
        return True

    def infer_shapes(self) -> list[str]:
        return [
            tensor.name
            for tensor in fake_manifest().stages[self.stage].inputs
            if tensor.name not in self.shapes
        ]

    def get_tensor_shape(self, name: str) -> list[int]:
        inputs = {
            tensor.name: np.zeros(self.shapes[tensor.name], tensor.dtype)
            for tensor in fake_manifest().stages[self.stage].inputs
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
        description = fake_manifest().stages[self.stage]
        shapes, addresses, scratch = dict(self.shapes), dict(self.addresses), self.scratch
        uploaded = [
            tensor.name for tensor in description.inputs if addresses[tensor.name] in self.device.fresh
        ]
        self.device.fresh.clear()
        self.device.names = {addresses[tensor.name]: tensor.name for tensor in description.outputs}
        self.device.log.append(("run", self.stage, self.profile, uploaded))

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
                self.device.view(addresses[tensor.name], content.nbytes)[:] = content.reshape(-1).view(
                    np.uint8
                )

        self.device.enqueue(run)
        self.scratch = None
        return True


class FakeInspector:
    """Tells the layers of an engine, in JSON."""

    def __init__(self) -> None:
        self.execution_context: FakeContext | None = None

    def get_engine_information(self, form: str) -> str:
        assert form == "JSON"
        context = self.execution_context
        assert context is not None and context.shapes
        types = [dtype for dtype, count in LAYERS.items() for _ in range(count)]
        return json.dumps({"Layers": [{"Outputs": [{"DataType": dtype}]} for dtype in types]})


class FakeConfig:
    """TensorRT-RTX's runtime configuration."""

    def __init__(self, caches: list["FakeCache"]) -> None:
        self.caches = caches
        self.cache: FakeCache | None = None
        self.strategy: object = None
        self.dynamic_shapes_kernel_specialization_strategy: object = None

    def set_execution_context_allocation_strategy(self, strategy: object) -> None:
        self.strategy = strategy

    def create_runtime_cache(self) -> "FakeCache":
        self.caches.append(FakeCache())
        return self.caches[-1]

    def set_runtime_cache(self, cache: "FakeCache") -> bool:
        self.cache = cache
        return True


class FakeCache:
    """TensorRT-RTX's store of compiled kernels."""

    def __init__(self) -> None:
        self.loaded = b""

    def deserialize(self, content: bytes) -> bool:
        self.loaded = content
        return True

    def serialize(self) -> bytes:
        return self.loaded + b"k"


def fake_tensorrt(device: FakeDevice) -> Any:
    """The module `tensorrt` or `tensorrt_rtx`; a plan is the name of its stage, or "refused: REASON"."""
    caches: list[FakeCache] = []
    configs: dict[str, FakeConfig] = {}

    class Engine:
        def __init__(self, stage: str) -> None:
            self.stage = stage

        def create_runtime_config(self) -> FakeConfig:
            configs[self.stage] = FakeConfig(caches)
            return configs[self.stage]

        def create_engine_inspector(self) -> FakeInspector:
            return FakeInspector()

        def create_execution_context(self, how: object) -> FakeContext:
            strategy = how.strategy if isinstance(how, FakeConfig) else how
            assert strategy == "USER_MANAGED"
            return FakeContext(device, self.stage)

    class Runtime:
        def __init__(self, logger: Any) -> None:
            self.logger = logger

        def deserialize_cuda_engine(self, plan: bytes) -> Engine | None:
            device._check()
            stage = plan.decode()
            if stage.startswith("refused: "):
                self.logger.log(Severity.WARNING, "only a warning")
                self.logger.log(Severity.ERROR, stage)
                return None
            return Engine(stage)

    return SimpleNamespace(
        ILogger=FakeLogger,
        Runtime=Runtime,
        ExecutionContextAllocationStrategy=SimpleNamespace(USER_MANAGED="USER_MANAGED"),
        DynamicShapesKernelSpecializationStrategy=SimpleNamespace(EAGER="EAGER", NONE="NONE"),
        LayerInformationFormat=SimpleNamespace(JSON="JSON"),
        caches=caches,
        configs=configs,
    )
