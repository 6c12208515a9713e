"""Runs of a stage as CUDA graphs: recorded once for each set of shapes, then launched as a whole."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ..device.session import MAX_GRAPHS, Work
from ..engine import DeviceArray
from .cuda_device import OnnxRuntimeDevice

Arrays = Mapping[str, DeviceArray]


@dataclass(frozen=True)
class _Recording:
    """A session that records its first run, and the fixed arrays that all its runs read and write."""

    session: Any
    binding: Any
    inputs: Arrays
    outputs: Arrays


class CudaGraphs:
    """The CUDA graphs of one stage, by the shapes of its inputs."""

    def __init__(self, device: OnnxRuntimeDevice, open_session: Callable[[bool], Any]) -> None:
        """`open_session` opens a session of the stage; its argument says whether that records."""
        self._device = device
        self._open_session = open_session
        self._recordings: dict[tuple[tuple[int, ...], ...], _Recording] = {}

    def run(self, work: Work, inputs: Arrays, outputs: Arrays) -> bool:
        """Put one run into the stream; all arrays are on the device.

        Returns:
            Whether it is there: there are `MAX_GRAPHS` of other shapes if it is not.

        Raises:
            InputError: the stage cannot be recorded, or the GPU's memory is too small.
        """
        shapes = tuple(inputs[name].shape for name in sorted(inputs))
        if shapes not in self._recordings:
            if len(self._recordings) == MAX_GRAPHS:
                return False
            self._recordings[shapes] = self._prepare(work, inputs, outputs)
        recording = self._recordings[shapes]
        copy = self._device.memory.device.copy
        for name, array in recording.inputs.items():
            copy(array.pointer, inputs[name].pointer, array.nbytes)
        self._device.run_in_one_thread(recording.session, recording.binding)
        for name, array in recording.outputs.items():
            copy(outputs[name].pointer, array.pointer, array.nbytes)
        return True

    def _prepare(self, work: Work, inputs: Arrays, outputs: Arrays) -> _Recording:
        session = self._open_session(True)
        fixed_inputs, fixed_outputs = (
            {name: work.empty(array.dtype, array.shape) for name, array in arrays.items()}
            for arrays in (inputs, outputs)
        )
        binding = self._device.bind(session, fixed_inputs, fixed_outputs)
        return _Recording(session, binding, fixed_inputs, fixed_outputs)
