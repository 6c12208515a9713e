"""The stages of a bundle on ONNX Runtime, each opened when it is first asked for."""

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import InputError
from .bundle import Bundle
from .device_array import DeviceArray
from .engine import Engine, Value
from .onnxruntime_cuda_engine import OnnxRuntimeCudaEngine
from .onnxruntime_device import OnnxRuntimeDevice
from .onnxruntime_engine import OnnxRuntimeEngine, check_runs_on_cpu, library
from .plans import BuiltEngines, find_built, read_plan
from .profiles import Limits, category_buckets


class OnnxRuntimeEngines:
    """Stages on the CPU, from the graphs that `sed-trt build` optimised where it did."""

    backend = "onnxruntime"
    buckets = None
    decodes_at_once = 1

    def __init__(self, bundle: Bundle, threads: int | None, reason: str) -> None:
        """`threads` bounds the CPU threads of one operator; None is one per core.

        Raises:
            InputError: ONNX Runtime is missing or broken, or the bundle is of bfloat16.
        """
        library()
        check_runs_on_cpu(bundle, *bundle.manifest.stages.values())
        self.reason = reason
        self._bundle = bundle
        self._threads = threads
        self._built = _find_optimised(bundle)
        self._opened: dict[str, Engine] = {}
        self._lock = threading.Lock()

    def stack(self, values: Sequence[Any]) -> Any:
        """Concatenate along the first axis; one array alone is given back as it is."""
        return values[0] if len(values) == 1 else np.concatenate(values)

    def hold(self, array: np.ndarray) -> np.ndarray:
        """The array itself."""
        return array

    def __getitem__(self, stage: str) -> Engine:
        """The engine of a stage; raises InputError when its file is missing, altered or cannot be loaded."""
        with self._lock:
            if stage not in self._opened:
                optimised = read_plan(self._built, stage) if self._built else None
                self._opened[stage] = OnnxRuntimeEngine(self._bundle, stage, self._threads, optimised)
            return self._opened[stage]


class OnnxRuntimeCudaEngines:
    """Stages on the GPU."""

    backend = "onnxruntime-cuda"
    # It takes any number of categories; these are the counts that shapes are padded to up to the usual limit.
    buckets = category_buckets(Limits().max_categories)
    decodes_at_once = 2

    def __init__(
        self, bundle: Bundle, threads: int | None, reason: str, device: OnnxRuntimeDevice | None = None
    ) -> None:
        """See `OnnxRuntimeEngines`.

        Raises:
            InputError: ONNX Runtime is missing, broken or without CUDA, or CUDA does not start.
        """
        self.reason = reason
        self._bundle = bundle
        self._threads = threads
        self._device = device or OnnxRuntimeDevice()
        self._opened: dict[str, Engine] = {}
        self._lock = threading.Lock()
        # Only a session tells whether CUDA starts; `label` is the smallest graph.
        self["label"]

    def stack(self, values: Sequence[Value]) -> DeviceArray:
        """Concatenate along the first axis, on the GPU."""
        return self._device.stack(
            [self.hold(value) if isinstance(value, np.ndarray) else value for value in values]
        )

    def hold(self, array: np.ndarray) -> DeviceArray:
        """A copy on the GPU."""
        return self._device.upload(array)

    def __getitem__(self, stage: str) -> Engine:
        """The engine of a stage; raises InputError when its file is missing, altered or cannot be loaded."""
        with self._lock:
            if stage not in self._opened:
                self._opened[stage] = OnnxRuntimeCudaEngine(self._bundle, stage, self._device, self._threads)
            return self._opened[stage]


def _find_optimised(bundle: Bundle) -> BuiltEngines | None:
    try:
        return find_built(bundle, "onnxruntime", None)
    except InputError:
        # The graphs of the bundle do as well.
        return None
