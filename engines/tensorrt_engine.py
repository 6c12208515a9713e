"""A stage run by TensorRT or TensorRT-RTX."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from .bundle import Stage
from .device_array import DeviceArray
from .device_session import DeviceSession, Work
from .engine import HOST_OUTPUTS, UNREAD_OUTPUTS, Value
from .profiles import Profile, choose_profile
from .tensorrt_contexts import TensorRTContexts


class TensorRTEngine:
    """One stage; its engine stays on the device, as do all its outputs that the host does not read."""

    def __init__(
        self,
        name: str,
        stage: Stage,
        engine: Any,
        profiles: tuple[Profile, ...],
        contexts: TensorRTContexts,
        session: DeviceSession,
    ) -> None:
        """`engine` is what `TensorRTContexts.load` gave, built with `profiles` in this order."""
        self._name = name
        self._stage = stage
        self._engine = engine
        self._profiles = profiles
        self._contexts = contexts
        self._session = session
        # One per profile: switching the profile of a context would wait for the device.
        self._by_profile: dict[int, Any] = {}

    @property
    def name(self) -> str:
        """Name of the stage."""
        return self._name

    def run(self, inputs: Mapping[str, Any]) -> dict[str, Value]:
        """Run the stage; see `Engine.run`.

        Returns as soon as the work is under way, unless the host reads an output: then when that is there.

        Raises:
            InputError: a shape fits none of the engine's profiles, or the GPU's memory is too small.
        """
        shapes = {tensor.name: tuple(inputs[tensor.name].shape) for tensor in self._stage.inputs}
        profile = choose_profile(self._profiles, shapes, self._name)
        with self._session.work(f"stage {self._name}") as work:
            context = self._context(profile)
            # Referred to until all work is in the stream, so that none of it shares memory.
            fed = [self._feed(work, context, name, inputs[name]) for name in shapes]
            made = self._make_outputs(work, context)
            scratch = work.scratch(context.update_device_memory_size_for_shapes())
            context.set_device_memory(scratch.pointer, scratch.size)
            if not context.execute_async_v3(self._session.device.stream):
                raise RuntimeError(f"stage {self._name} does not run: {self._contexts.reason()}")
            downloads = {name: work.download(made[name]) for name in made if name in HOST_OUTPUTS}
            del fed, scratch
        outputs: dict[str, Value] = {
            name: array for name, array in made.items() if name not in HOST_OUTPUTS | UNREAD_OUTPUTS
        }
        return outputs | {name: self._session.received(work, each) for name, each in downloads.items()}

    def _context(self, profile: int) -> Any:
        if profile not in self._by_profile:
            stream = self._session.device.stream
            self._by_profile[profile] = self._contexts.context(self._engine, self._name, profile, stream)
        return self._by_profile[profile]

    def _feed(self, work: Work, context: Any, name: str, value: Value) -> DeviceArray:
        array = work.upload(value) if isinstance(value, np.ndarray) else work.aligned(value)
        if not context.set_input_shape(name, array.shape):
            raise RuntimeError(
                f"stage {self._name} refuses {name} of shape {array.shape}: {self._contexts.reason()}"
            )
        context.set_tensor_address(name, array.pointer)
        return array

    def _make_outputs(self, work: Work, context: Any) -> dict[str, DeviceArray]:
        if missing := context.infer_shapes():
            raise RuntimeError(f"stage {self._name}: TensorRT misses the shapes of {', '.join(missing)}")
        made = {}
        for tensor in self._stage.outputs:
            shape = tuple(context.get_tensor_shape(tensor.name))
            made[tensor.name] = work.empty(tensor.dtype, shape)
            context.set_tensor_address(tensor.name, made[tensor.name].pointer)
        return made
