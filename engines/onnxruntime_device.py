"""Arrays on a device of ONNX Runtime."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from .device_array import DeviceArray
from .onnxruntime_copy import copy_session
from .onnxruntime_engine import CPU_PROVIDER, CUDA_PROVIDER, library

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
