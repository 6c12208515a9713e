"""The stages of a bundle on ONNX Runtime's CUDA provider; what the next stage takes stays on the GPU."""

import re
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ...bundle import Bundle
from ...errors import InputError
from ..device.protocol import out_of_memory
from ..engine import HOST_OUTPUTS, UNREAD_OUTPUTS, DeviceArray, Engine, Value
from ..profiles import Limits, category_buckets
from .session import CPU_PROVIDER, CUDA_PROVIDER, library, open_session

# Numbers of the ONNX format: wire types, fields of its messages and values of its enumerations.
_VARINT, _MESSAGE = 0, 2
_UINT8 = 2
_IR_VERSION, _OPSET = 8, 13


def copy_session(provider: str) -> Any:
    """A session that copies its input `x`, uint8 of any length, to its output `y`."""
    onnxruntime = library()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(_identity_graph(), options, providers=[provider])


def _identity_graph() -> bytes:
    # The onnx package, which would write these bytes, is not among the runtime's requirements.
    node = _text(1, "x") + _text(2, "y") + _text(4, "Identity")
    graph = (
        _message(1, node)
        + _text(2, "copy")
        + _message(11, _bytes_named("x"))
        + _message(12, _bytes_named("y"))
    )
    return _number(1, _IR_VERSION) + _message(7, graph) + _message(8, _number(2, _OPSET))


def _bytes_named(name: str) -> bytes:
    """A ValueInfoProto: a row of bytes of any length."""
    row = _message(2, _message(1, _text(2, "bytes")))
    return _text(1, name) + _message(2, _message(1, _number(1, _UINT8) + row))


def _number(field: int, value: int) -> bytes:
    return bytes([field << 3 | _VARINT, value])


def _message(field: int, content: bytes) -> bytes:
    # One byte holds a length below 128; this graph stays below.
    return bytes([field << 3 | _MESSAGE, len(content)]) + content


def _text(field: int, value: str) -> bytes:
    return _message(field, value.encode())


# ONNX's number for the type that numpy lacks.
BFLOAT16 = 16


def element_type(dtype: str) -> Any:
    """What ONNX Runtime's bindings call the dtype of this name."""
    return BFLOAT16 if dtype == "bfloat16" else np.dtype(dtype).type


def device_array(value: Any, dtype: str) -> DeviceArray:
    """An `OrtValue` as a device array, which keeps it."""
    return DeviceArray(value, int(value.data_ptr()), dtype, tuple(value.shape()))


class OnnxRuntimeDevice:
    """The device of ONNX Runtime sessions: "cuda", or "cpu" to run the same code without a GPU."""

    def __init__(self, kind: str = "cuda") -> None:
        self.kind = kind
        self._copy: Any = None

    def upload(self, array: np.ndarray) -> DeviceArray:
        """A copy of a C-contiguous array on the device; on the CPU the array itself."""
        value = library().OrtValue.ortvalue_from_numpy(array, self.kind, 0)
        return device_array(value, array.dtype.name)

    def stack(self, arrays: Sequence[DeviceArray]) -> DeviceArray:
        """The arrays one after the other along their first axis; one alone is given back as it is."""
        first = arrays[0]
        if len(arrays) == 1:
            return first
        if self._copy is None:
            self._copy = copy_session(CPU_PROVIDER if self.kind == "cpu" else CUDA_PROVIDER)
        size = sum(array.nbytes for array in arrays)
        target = library().OrtValue.ortvalue_from_shape_and_type([size], np.uint8, self.kind, 0)
        pointer = int(target.data_ptr())
        stacked = DeviceArray(target, pointer, first.dtype, (sum(map(len, arrays)), *first.shape[1:]))
        for array in arrays:
            binding = self._copy.io_binding()
            binding.bind_input("x", self.kind, 0, np.uint8, [array.nbytes], array.pointer)
            binding.bind_output("y", self.kind, 0, np.uint8, [array.nbytes], pointer)
            self._copy.run_with_iobinding(binding)
            pointer += array.nbytes
        return stacked


_CUDA_OPTIONS = {
    # The default tries every algorithm of cuDNN for every new shape: seconds for each bucket and stage.
    "cudnn_conv_algo_search": "HEURISTIC",
    # The default doubles the memory each time it grows, for each of the eight sessions.
    "arena_extend_strategy": "kSameAsRequested",
    # On by default; what the graphs say is float32 must be.
    "use_tf32": "0",
}
# Two ways in which ONNX Runtime says that memory is short; the number is what it asked for.
_NO_MEMORY = re.compile(r"requested (?:buffer of size|bytes of) (\d+)|out of memory", re.IGNORECASE)


class OnnxRuntimeCudaEngine:
    """One stage in one session, shared by all threads."""

    def __init__(
        self, bundle: Bundle, stage: str, device: OnnxRuntimeDevice, threads: int | None = None
    ) -> None:
        """Open the graph of `stage`; `threads` bounds those of operators that run on the CPU.

        Raises:
            InputError: ONNX Runtime is missing or broken, the file is missing or altered, ONNX Runtime
                cannot load it, or CUDA does not start.
        """
        description = bundle.manifest.stages[stage]
        path = bundle.verified(description.file)
        self._name = stage
        self._device = device
        self._dtypes = {tensor.name: tensor.dtype for tensor in description.outputs}
        on_cpu = device.kind == "cpu"
        providers: list[Any] = [CPU_PROVIDER] if on_cpu else [(CUDA_PROVIDER, _CUDA_OPTIONS), CPU_PROVIDER]
        self._session = open_session(path, path, threads, providers)
        if not on_cpu and CUDA_PROVIDER not in self._session.get_providers():
            raise InputError(
                "backend onnxruntime-cuda: CUDA did not start, expected an NVIDIA GPU, its driver and cuDNN; "
                "use the backend onnxruntime or see `sed-trt doctor`"
            )

    @property
    def name(self) -> str:
        """Name of the stage."""
        return self._name

    def run(self, inputs: Mapping[str, Any]) -> dict[str, Value]:
        """Run the stage; see `Engine.run`. ONNX Runtime waits for the GPU before it returns.

        Raises:
            InputError: the GPU's memory is too small.
        """
        wanted = [name for name in self._dtypes if name not in UNREAD_OUTPUTS]
        try:
            values = self._run(inputs, wanted)
        except Exception as error:
            # ONNX Runtime's exceptions share no base class of their own.
            if found := _NO_MEMORY.search(str(error)):
                asked = int(found[1]) if found[1] else None
                raise out_of_memory(f"stage {self._name}", asked, None) from error
            raise
        return {
            name: value.numpy() if name in HOST_OUTPUTS else device_array(value, self._dtypes[name])
            for name, value in zip(wanted, values, strict=True)
        }

    def _run(self, inputs: Mapping[str, Value], wanted: list[str]) -> list[Any]:
        # A binding is for one run of one thread.
        binding = self._session.io_binding()
        for name, value in inputs.items():
            if isinstance(value, DeviceArray):
                kind = element_type(value.dtype)
                binding.bind_input(name, self._device.kind, 0, kind, list(value.shape), value.pointer)
            else:
                binding.bind_cpu_input(name, value)
        for name in wanted:
            binding.bind_output(name, "cpu" if name in HOST_OUTPUTS else self._device.kind, 0)
        binding.synchronize_inputs()
        self._session.run_with_iobinding(binding)
        outputs: list[Any] = binding.get_outputs()
        return outputs


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
            [self.to_device(value) if isinstance(value, np.ndarray) else value for value in values]
        )

    def to_device(self, array: np.ndarray) -> DeviceArray:
        """A copy on the GPU."""
        return self._device.upload(array)

    def __getitem__(self, stage: str) -> Engine:
        """The engine of a stage; raises InputError when its file is missing, altered or cannot be loaded."""
        with self._lock:
            if stage not in self._opened:
                self._opened[stage] = OnnxRuntimeCudaEngine(self._bundle, stage, self._device, self._threads)
            return self._opened[stage]
