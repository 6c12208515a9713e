"""The stages of a bundle on TensorRT or TensorRT-RTX."""

import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ...bundle import Bundle, Stage
from ...stages import BY_NAME, DEBUG_OUTPUTS, HOST_OUTPUTS, gpu_label_stage
from ..device.cuda import check_driver, find_gpu, open_device
from ..device.protocol import Device
from ..device.session import MAX_GRAPHS, DeviceSession, Work
from ..engine import DeviceArray, Value
from ..profiles import Profile, category_buckets, choose_profile
from ..store import find_built, read_plan
from .contexts import CACHE_FILE, TensorRTContexts
from .execution import CapturedExecution, Execution
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
        captures: bool = False,
    ) -> None:
        """`engine` comes from `TensorRTContexts.load` and was built with `profiles`, in this order.

        With `captures` the stage runs as a CUDA graph for each set of shapes, unless its shapes follow those
        of images and vocabularies and rarely come again.
        """
        self._name = name
        self._stage = stage
        self._engine = engine
        self._profiles = profiles
        self._contexts = contexts
        self._session = session
        self._free_shapes = BY_NAME[name].free_shapes
        self._captures = captures and not self._free_shapes
        # One per profile: switching the profile of a context would wait for the device.
        self._by_profile: dict[int, Execution] = {}
        self._by_shapes: dict[tuple[tuple[int, ...], ...], CapturedExecution] = {}

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
        return self._execute(inputs, HOST_OUTPUTS)

    def run_on_device(self, inputs: Mapping[str, Any]) -> dict[str, Value]:
        """Run the stage; see `DeviceEngine.run_on_device`."""
        return self._execute(inputs, frozenset())

    def _execute(self, inputs: Mapping[str, Any], for_host: frozenset[str]) -> dict[str, Value]:
        shapes = {tensor.name: tuple(inputs[tensor.name].shape) for tensor in self._stage.inputs}
        profile = choose_profile(self._profiles, shapes, self._name)
        with self._session.work(f"stage {self._name}") as work:
            key = tuple(shapes.values())
            if self._captures and (key in self._by_shapes or len(self._by_shapes) < MAX_GRAPHS):
                outputs = self._run_captured(work, profile, shapes, inputs, for_host)
            else:
                outputs = self._run_at_once(work, profile, inputs)
            # Kernels for free shapes are compiled once, others for each set of shapes.
            self._contexts.executed((self._name, profile, *(() if self._free_shapes else shapes.values())))
            downloads = {name: work.download(outputs[name]) for name in outputs if name in for_host}
        values: dict[str, Value] = {
            name: array for name, array in outputs.items() if name not in for_host | DEBUG_OUTPUTS
        }
        return values | {name: self._session.received(work, each) for name, each in downloads.items()}

    def _run_at_once(self, work: Work, profile: int, inputs: Mapping[str, Value]) -> dict[str, DeviceArray]:
        if profile not in self._by_profile:
            self._by_profile[profile] = self._execution(profile)
        execution = self._by_profile[profile]
        # Referred to until the work is in the stream, so that none of it shares memory.
        arrays = {each.name: _on_device(work, inputs[each.name]) for each in self._stage.inputs}
        outputs, scratch = execution.bind(work, arrays)
        execution.enqueue()
        del arrays, scratch
        return outputs

    def _run_captured(
        self,
        work: Work,
        profile: int,
        shapes: Mapping[str, tuple[int, ...]],
        inputs: Mapping[str, Value],
        for_host: frozenset[str],
    ) -> dict[str, DeviceArray]:
        key = tuple(shapes.values())
        if key not in self._by_shapes:
            execution = self._execution(profile)
            self._by_shapes[key] = CapturedExecution(work, execution, self._stage, shapes)
        return self._by_shapes[key].run(work, inputs, for_host)

    def _execution(self, profile: int) -> Execution:
        stream = self._session.device.stream
        return Execution(self._name, self._stage, self._engine, profile, self._contexts, stream)


def _on_device(work: Work, value: Value) -> DeviceArray:
    return work.upload(value) if isinstance(value, np.ndarray) else work.aligned(value)


class TensorRTEngines:
    """Engines built by `sed-trt build` for this GPU, each loaded when it is first used."""

    decodes_at_once = 2
    images_at_once = None
    folds_vocabularies = False

    def __init__(
        self,
        bundle: Bundle,
        backend: str,
        reason: str,
        open_device: Callable[[bool], Device] = open_device,
        cuda_graphs: bool = False,
    ) -> None:
        """Open the GPU and the engines that were built for it.

        Args:
            bundle: whose engines.
            backend: "tensorrt" or "tensorrt-rtx".
            reason: why it was taken.
            open_device: called with whether the device shall have CUDA graphs.
            cuda_graphs: whether stages whose shapes come again run as CUDA graphs, which takes launches off
                the host for memory on the GPU: each set of shapes gets its own inputs, outputs and scratch.
                Off until a GPU has shown what it gains.

        Raises:
            InputError: no GPU, no driver or one too old; the library is missing or of a version that does not
                fit; no engines were built that fit library, GPU and bundle; TensorRT does not start, or
                refuses the engines on this GPU; or the device has no CUDA graphs.
        """
        gpu = find_gpu()
        library = load_library(backend)
        check_driver(backend, gpu)
        self._bundle = bundle
        self.backend = backend
        self.reason = reason
        self._built = find_built(bundle, backend, gpu)
        self.buckets = category_buckets(self._built.limits.max_categories)
        # TensorRT-RTX captures its work by itself.
        self._captures = cuda_graphs and backend == "tensorrt"
        self._session = DeviceSession(open_device(self._captures))
        version_compatible = bool(self._built.options.version_compatible)
        with self._session.device.active():
            self._contexts = TensorRTContexts(
                library, self._built.folder / CACHE_FILE, version_compatible, cuda_graphs
            )
        self._opened: dict[str, TensorRTEngine] = {}
        self._lock = threading.Lock()
        # TensorRT's objects end while CUDA still runs, at the latest when the interpreter does.
        weakref.finalize(self, _close, self._opened, self._contexts, self._session)
        self.label_stage = gpu_label_stage(self._built.stages)
        # Only an engine tells whether this GPU takes them; the one that labels is the smallest.
        self[self.label_stage]

    def stack(self, values: Sequence[Value]) -> Value:
        """Concatenate along the first axis, on the device."""
        arrays = [self.to_device(value) if isinstance(value, np.ndarray) else value for value in values]
        return self._session.stack(arrays)

    def to_device(self, array: np.ndarray) -> DeviceArray:
        """A copy on the device."""
        return self._session.upload(array)

    def warmed_up(self) -> None:
        """Keep the kernels that TensorRT-RTX compiled for the next start."""
        with self._session.work("keeping compiled kernels"):
            self._contexts.save_cache()

    def to_host(self, value: Value) -> np.ndarray:
        """A copy on the host; waits for the work before it, while other threads run on."""
        return value if isinstance(value, np.ndarray) else self.download(value)()

    def download(self, value: DeviceArray) -> Callable[[], np.ndarray]:
        """See `DeviceEngines.download`."""
        return self._session.download(value)

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
        return TensorRTEngine(
            stage, description, engine, profiles, self._contexts, self._session, self._captures
        )


def _close(opened: dict[str, TensorRTEngine], contexts: TensorRTContexts, session: DeviceSession) -> None:
    with session.device.active():
        contexts.save_cache()
        opened.clear()
        contexts.close()
    session.close()
