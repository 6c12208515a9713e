"""The stages of a bundle on ONNX Runtime's CUDA provider; values between stages stay on the GPU."""

import re
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ...bundle import Bundle
from ...errors import InputError
from ...stages import DEBUG_OUTPUTS, HOST_OUTPUTS, gpu_label_stage
from ..device.protocol import out_of_memory
from ..engine import DeviceArray, Value
from ..profiles import Limits, category_buckets
from .session import CPU_PROVIDER, CUDA_PROVIDER, check_session, library, open_session

_CUDA_OPTIONS = {
    # The default tries every algorithm of cuDNN for every new shape: seconds for each bucket and stage.
    "cudnn_conv_algo_search": "HEURISTIC",
    # The default doubles the memory each time it grows, for each of the eight sessions.
    "arena_extend_strategy": "kSameAsRequested",
    # On by default; what the graphs say is float32 must be.
    "use_tf32": "0",
}
# Two ways in which ONNX Runtime says that memory is short; the number is the size of the request in bytes.
_NO_MEMORY = re.compile(r"requested (?:buffer of size|bytes of) (\d+)|out of memory", re.IGNORECASE)
# ONNX's number for the type that numpy lacks.
BFLOAT16 = 16
# An ONNX model whose output `y` is its input `x`, uint8 of any length. It is kept as bytes because the onnx
# package, which writes such models, is not among the runtime's requirements.
COPY_MODEL = (
    b'\x08\x08:D\n\x10\n\x01x\x12\x01y"\x08Identity\x12\x04copy'
    b"Z\x14\n\x01x\x12\x0f\n\r\x08\x02\x12\t\n\x07\x12\x05bytes"
    b"b\x14\n\x01y\x12\x0f\n\r\x08\x02\x12\t\n\x07\x12\x05bytesB\x02\x10\r"
)


class OnnxRuntimeDevice:
    """The device of ONNX Runtime sessions: "cuda", or "cpu" to run the same code without a GPU."""

    def __init__(self, kind: str = "cuda") -> None:
        self.kind = kind
        self._copy: Any = None

    def upload(self, array: np.ndarray) -> DeviceArray:
        """A copy of a C-contiguous array on the device; on the CPU the array itself."""
        value = library().OrtValue.ortvalue_from_numpy(array, self.kind, 0)
        return device_array(value, array.dtype.name)

    def download(self, array: DeviceArray) -> np.ndarray:
        """A copy on the host of an array that a session or `upload` gave, or of a part of it."""
        whole: Any = array.owner
        content = whole.numpy().reshape(-1).view(np.uint8)
        start = array.pointer - int(whole.data_ptr())
        part: np.ndarray = content[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
        return part

    def stack(self, arrays: Sequence[DeviceArray]) -> DeviceArray:
        """The arrays one after the other along their first axis; one alone is given back as it is."""
        first = arrays[0]
        if len(arrays) == 1:
            return first
        if self._copy is None:
            options = library().SessionOptions()
            options.log_severity_level = 3
            providers = [CPU_PROVIDER if self.kind == "cpu" else CUDA_PROVIDER]
            self._copy = library().InferenceSession(COPY_MODEL, options, providers=providers)
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


class OnnxRuntimeCudaEngine:
    """One stage in one session, shared by all threads."""

    def __init__(
        self, bundle: Bundle, stage: str, device: OnnxRuntimeDevice, threads: int | None = None
    ) -> None:
        """Open the graph of `stage`; `threads` bounds those of operators that run on the CPU.

        Raises:
            InputError: ONNX Runtime is missing or broken, the file is missing or altered, ONNX Runtime
                cannot load it, its inputs and outputs are not those of the manifest, or CUDA does not start.
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
        check_session(self._session, description, path)

    @property
    def name(self) -> str:
        """Name of the stage."""
        return self._name

    def run(self, inputs: Mapping[str, Any]) -> dict[str, Value]:
        """Run the stage; see `Engine.run`. ONNX Runtime waits for the GPU before it returns.

        Raises:
            InputError: the GPU's memory is too small.
        """
        return self._outputs(inputs, HOST_OUTPUTS)

    def run_on_device(self, inputs: Mapping[str, Any]) -> dict[str, Value]:
        """Run the stage; see `DeviceEngine.run_on_device`. ONNX Runtime waits for the GPU all the same."""
        return self._outputs(inputs, frozenset())

    def _outputs(self, inputs: Mapping[str, Any], for_host: frozenset[str]) -> dict[str, Value]:
        names = [name for name in self._dtypes if name not in DEBUG_OUTPUTS]
        try:
            values = self._run(inputs, {name: name in for_host for name in names})
        except Exception as error:
            # ONNX Runtime's exceptions share no base class of their own.
            if match := _NO_MEMORY.search(str(error)):
                size = int(match[1]) if match[1] else None
                raise out_of_memory(f"stage {self._name}", size, None) from error
            raise
        return {
            name: value.numpy() if name in for_host else device_array(value, self._dtypes[name])
            for name, value in zip(names, values, strict=True)
        }

    def _run(self, inputs: Mapping[str, Value], to_host: Mapping[str, bool]) -> list[Any]:
        # A binding is for one run of one thread.
        binding = self._session.io_binding()
        for name, value in inputs.items():
            if isinstance(value, DeviceArray):
                kind = element_type(value.dtype)
                binding.bind_input(name, self._device.kind, 0, kind, list(value.shape), value.pointer)
            else:
                binding.bind_cpu_input(name, value)
        for name, on_host in to_host.items():
            binding.bind_output(name, "cpu" if on_host else self._device.kind, 0)
        binding.synchronize_inputs()
        self._session.run_with_iobinding(binding)
        outputs: list[Any] = binding.get_outputs()
        return outputs


class OnnxRuntimeCudaEngines:
    """Stages on the GPU."""

    backend = "onnxruntime-cuda"
    # It takes any number of categories; these are the counts that shapes are padded to.
    buckets = category_buckets(Limits().max_categories)
    decodes_at_once = 2
    images_at_once = None
    folds_vocabularies = False

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
        self._opened: dict[str, OnnxRuntimeCudaEngine] = {}
        self._lock = threading.Lock()
        self.label_stage = gpu_label_stage(bundle.manifest.stages)
        # Only a session tells whether CUDA starts; the one that labels is the smallest.
        self[self.label_stage]

    def stack(self, values: Sequence[Value]) -> DeviceArray:
        """Concatenate along the first axis, on the GPU."""
        return self._device.stack(
            [self.to_device(value) if isinstance(value, np.ndarray) else value for value in values]
        )

    def to_device(self, array: np.ndarray) -> DeviceArray:
        """A copy on the GPU."""
        return self._device.upload(array)

    def warmed_up(self) -> None:
        """Nothing is compiled that could be kept."""

    def to_host(self, value: Value) -> np.ndarray:
        """A copy on the host; each run has waited for the GPU."""
        return self._device.download(value) if isinstance(value, DeviceArray) else value

    def download(self, value: DeviceArray) -> Callable[[], np.ndarray]:
        """See `DeviceEngines.download`. The copy is made when it is waited for."""
        whole: Any = value.owner
        start = value.pointer - int(whole.data_ptr())

        def copied() -> np.ndarray:
            content: np.ndarray = whole.numpy().reshape(-1).view(np.uint8)
            return content[start : start + value.nbytes].view(value.dtype).reshape(value.shape)

        return copied

    def __getitem__(self, stage: str) -> OnnxRuntimeCudaEngine:
        """The engine of a stage; raises InputError when its file is missing, altered or cannot be loaded."""
        with self._lock:
            if stage not in self._opened:
                self._opened[stage] = OnnxRuntimeCudaEngine(self._bundle, stage, self._device, self._threads)
            return self._opened[stage]


def element_type(dtype: str) -> Any:
    """What ONNX Runtime's bindings call the dtype of this name."""
    return BFLOAT16 if dtype == "bfloat16" else np.dtype(dtype).type


def device_array(value: Any, dtype: str) -> DeviceArray:
    """An `OrtValue` as a device array, which keeps it."""
    return DeviceArray(value, int(value.data_ptr()), dtype, tuple(value.shape()))
