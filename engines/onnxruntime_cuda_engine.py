"""A stage run by ONNX Runtime's CUDA provider; what the next stage takes stays on the GPU."""

import re
from collections.abc import Mapping
from typing import Any

from ..errors import InputError
from .bundle import Bundle
from .device_array import DeviceArray
from .device_errors import out_of_memory
from .engine import HOST_OUTPUTS, UNREAD_OUTPUTS, Value
from .onnxruntime_device import OnnxRuntimeDevice, device_array, element_type
from .onnxruntime_engine import CPU_PROVIDER, CUDA_PROVIDER, open_session

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
