"""The stages of a bundle on TensorRT or TensorRT-RTX."""

import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ...bundle import Bundle, Stage
from ...stages import DEBUG_OUTPUTS, HOST_OUTPUTS
from ..device.cuda import CudaDevice, check_driver, find_gpu
from ..device.protocol import Device
from ..device.session import DeviceSession, Work
from ..engine import DeviceArray, Value
from ..profiles import Profile, category_buckets, choose_profile
from ..store import find_built, read_plan
from .contexts import CACHE_FILE, TensorRTContexts
from .library import load_library


class TensorRTEngine:
    """One stage; its engine and the outputs that the host does not read stay on the device."""

    def __init__(
        self,
        name: str,
        stage: Stage,
        engine: Any,
        profiles: tuple[Profile, ...],
        contexts: TensorRTContexts,
        session: DeviceSession,
    ) -> None:
        """`engine` comes from `TensorRTContexts.load` and was built with `profiles`, in this order."""
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

        Returns when the work is in the stream or, if the host reads an output, when that is there.

        Raises:
            InputError: a shape fits none of the engine's profiles, or the GPU's memory is too small.
        """
        return self._run(inputs, HOST_OUTPUTS)

    def run_on_device(self, inputs: Mapping[str, Any]) -> dict[str, Value]:
        """Run the stage; see `DeviceEngine.run_on_device`."""
        return self._run(inputs, frozenset())

    def _run(self, inputs: Mapping[str, Any], for_host: frozenset[str]) -> dict[str, Value]:
        shapes = {tensor.name: tuple(inputs[tensor.name].shape) for tensor in self._stage.inputs}
        profile = choose_profile(self._profiles, shapes, self._name)
        with self._session.work(f"stage {self._name}") as work:
            context = self._context(profile)
            # Referred to until all work is in the stream, so that none of it shares memory.
            arrays = [self._set_input(work, context, name, inputs[name]) for name in shapes]
            outputs = self._allocate_outputs(work, context)
            scratch = work.scratch(context.update_device_memory_size_for_shapes())
            context.set_device_memory(scratch.pointer, scratch.size)
            if not context.execute_async_v3(self._session.device.stream):
                raise RuntimeError(f"stage {self._name} does not run: {self._contexts.reason()}")
            downloads = {name: work.download(outputs[name]) for name in outputs if name in for_host}
            del arrays, scratch
        values: dict[str, Value] = {
            name: array for name, array in outputs.items() if name not in for_host | DEBUG_OUTPUTS
        }
        return values | {name: self._session.received(work, each) for name, each in downloads.items()}

    def _context(self, profile: int) -> Any:
        if profile not in self._by_profile:
            stream = self._session.device.stream
            self._by_profile[profile] = self._contexts.context(self._engine, self._name, profile, stream)
        return self._by_profile[profile]

    def _set_input(self, work: Work, context: Any, name: str, value: Value) -> DeviceArray:
        array = work.upload(value) if isinstance(value, np.ndarray) else work.aligned(value)
        if not context.set_input_shape(name, array.shape):
            raise RuntimeError(
                f"stage {self._name} refuses {name} of shape {array.shape}: {self._contexts.reason()}"
            )
        context.set_tensor_address(name, array.pointer)
        return array

    def _allocate_outputs(self, work: Work, context: Any) -> dict[str, DeviceArray]:
        if missing := context.infer_shapes():
            raise RuntimeError(f"stage {self._name}: TensorRT misses the shapes of {', '.join(missing)}")
        outputs = {}
        for tensor in self._stage.outputs:
            shape = tuple(context.get_tensor_shape(tensor.name))
            outputs[tensor.name] = work.empty(tensor.dtype, shape)
            context.set_tensor_address(tensor.name, outputs[tensor.name].pointer)
        return outputs


class TensorRTEngines:
    """Engines built by `sed-trt build` for this GPU, each loaded when it is first used."""

    decodes_at_once = 2
    images_at_once = 1
    folds_vocabularies = False

    def __init__(
        self, bundle: Bundle, backend: str, reason: str, open_device: Callable[[], Device] = CudaDevice
    ) -> None:
        """`backend` is "tensorrt" or "tensorrt-rtx".

        Raises:
            InputError: no GPU, no driver or one too old; the library is missing or of a version that does not
                fit; no engines were built that fit library, GPU and bundle; or TensorRT does not start, or
                refuses the engines on this GPU.
        """
        gpu = find_gpu()
        library = load_library(backend)
        check_driver(backend, gpu)
        self._bundle = bundle
        self.backend = backend
        self.reason = reason
        self._built = find_built(bundle, backend, gpu)
        self.buckets = category_buckets(self._built.limits.max_categories)
        self._session = DeviceSession(open_device())
        with self._session.device.active():
            self._contexts = TensorRTContexts(
                library, self._built.folder / CACHE_FILE, bool(self._built.options.version_compatible)
            )
        self._opened: dict[str, TensorRTEngine] = {}
        self._lock = threading.Lock()
        # TensorRT's objects end while CUDA still runs, at the latest when the interpreter does.
        weakref.finalize(self, _close, self._opened, self._contexts, self._session)
        # Only an engine tells whether this GPU takes them; `label` is the smallest.
        self["label"]

    def stack(self, values: Sequence[Value]) -> Value:
        """Concatenate along the first axis, on the device."""
        arrays = [self.to_device(value) if isinstance(value, np.ndarray) else value for value in values]
        return self._session.stack(arrays)

    def to_device(self, array: np.ndarray) -> DeviceArray:
        """A copy on the device."""
        return self._session.upload(array)

    def download(self, value: DeviceArray) -> Callable[[], np.ndarray]:
        """See `DeviceEngines.download`."""
        with self._session.work("kept categories") as work:
            download = work.download(value)
        return lambda: self._session.received(work, download)

    def warmed_up(self) -> None:
        """Nothing is left to do."""

    def __getitem__(self, stage: str) -> TensorRTEngine:
        """The engine of a stage; raises InputError when its plan is altered or cannot be loaded."""
        with self._lock:
            if stage not in self._opened:
                self._opened[stage] = self._open(stage)
            return self._opened[stage]

    def _open(self, stage: str) -> TensorRTEngine:
        plan, file = read_plan(self._built, stage), self._built.plan_file(stage)
        with self._session.device.active():
            engine = self._contexts.load(plan, file, self._built.command)
        description, profiles = self._bundle.manifest.stages[stage], self._built.stages[stage].profiles
        return TensorRTEngine(stage, description, engine, profiles, self._contexts, self._session)


def _close(opened: dict[str, TensorRTEngine], contexts: TensorRTContexts, session: DeviceSession) -> None:
    with session.device.active():
        contexts.save_cache()
        opened.clear()
    session.close()
