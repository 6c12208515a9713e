"""One execution context of a stage, run on memory of the moment or, as a CUDA graph, on memory of its own."""

from collections.abc import Mapping
from typing import Any

from ...bundle import Stage
from ...stages import DEBUG_OUTPUTS
from ..device.protocol import Graph
from ..device.session import Buffer, Work
from ..engine import DeviceArray, Value
from .contexts import TensorRTContexts

Shapes = Mapping[str, tuple[int, ...]]


class Execution:
    """A context of a stage for one optimization profile."""

    def __init__(
        self,
        name: str,
        stage: Stage,
        engine: Any,
        profile: int,
        contexts: TensorRTContexts,
        stream: int,
    ) -> None:
        """Make the context; raises as `TensorRTContexts.context`."""
        self._name = name
        self._stage = stage
        self._contexts = contexts
        self._stream = stream
        self._context = contexts.context(engine, name, profile, stream)

    def bind(self, work: Work, inputs: Mapping[str, DeviceArray]) -> tuple[dict[str, DeviceArray], Buffer]:
        """Set the inputs, and memory for the outputs and for scratch, which are returned.

        Raises:
            InputError: the GPU's memory is too small.
            RuntimeError: TensorRT refuses a shape.
        """
        context = self._context
        for name, array in inputs.items():
            if not context.set_input_shape(name, array.shape):
                raise RuntimeError(
                    f"stage {self._name} refuses {name} of shape {array.shape}: {self._contexts.reason()}"
                )
            context.set_tensor_address(name, array.pointer)
        if missing := context.infer_shapes():
            raise RuntimeError(f"stage {self._name}: TensorRT misses the shapes of {', '.join(missing)}")
        outputs = {}
        for tensor in self._stage.outputs:
            shape = tuple(context.get_tensor_shape(tensor.name))
            outputs[tensor.name] = work.empty(tensor.dtype, shape)
            context.set_tensor_address(tensor.name, outputs[tensor.name].pointer)
        size = context.update_device_memory_size_for_shapes()
        # Zero is the size of a failure, and of shapes that need no memory.
        if size == 0 and self._contexts.has_errors():
            raise RuntimeError(
                f"stage {self._name}: TensorRT gives no size of its memory: {self._contexts.reason()}"
            )
        scratch = work.scratch(size)
        context.set_device_memory(scratch.pointer, scratch.size)
        return outputs, scratch

    def enqueue(self) -> None:
        """Put the work into the stream; raises RuntimeError when TensorRT fails."""
        if not self._context.execute_async_v3(self._stream):
            raise RuntimeError(f"stage {self._name} does not run: {self._contexts.reason()}")


class CapturedExecution:
    """A stage for inputs of one set of shapes, captured as a CUDA graph.

    The graph holds addresses, so its inputs, outputs and scratch have memory of their own for as long as it
    is there, and so has it a context, which no other shapes may change. What goes in is copied there, and
    what stays on the device is copied from there.
    """

    def __init__(self, work: Work, execution: Execution, stage: Stage, shapes: Shapes) -> None:
        """Reserve the memory; raises InputError when the GPU has too little."""
        self._execution = execution
        self._inputs = {tensor.name: work.empty(tensor.dtype, shapes[tensor.name]) for tensor in stage.inputs}
        self._outputs, self._scratch = execution.bind(work, self._inputs)
        self._graph: Graph | None = None

    def run(
        self, work: Work, inputs: Mapping[str, Value], for_host: frozenset[str]
    ) -> dict[str, DeviceArray]:
        """Put the stage into the stream; the outputs `for_host` are to be fetched in the same `work`.

        Raises:
            InputError: the work cannot be captured, or the memory is too small.
        """
        for name, array in self._inputs.items():
            work.fill(array, inputs[name])
        if self._graph is None:
            # The first execution of new shapes sets up the context, which a capture does not allow.
            self._execution.enqueue()
            self._graph = work.capture(self._execution.enqueue)
        else:
            self._graph.launch()
        return {
            name: array if name in for_host else work.stack([array])
            for name, array in self._outputs.items()
            if name not in DEBUG_OUTPUTS
        }
