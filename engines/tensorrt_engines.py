"""The stages of a bundle on TensorRT or TensorRT-RTX."""

import threading
import weakref
from collections.abc import Callable, Sequence

import numpy as np

from .bundle import Bundle
from .cuda_device import CudaDevice
from .device_array import DeviceArray
from .device_protocol import Device
from .device_session import DeviceSession
from .engine import Value
from .gpu import check_driver, find_gpu
from .plans import BuiltEngines, build_command, find_built, read_plan
from .profiles import category_buckets
from .tensorrt_contexts import CACHE_FILE, TensorRTContexts
from .tensorrt_engine import TensorRTEngine
from .trt_library import load_library


class TensorRTEngines:
    """Engines built by `sed-trt build` for this GPU, each loaded when it is first asked for."""

    decodes_at_once = 2

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
        self._backend = backend
        self._reason = reason
        self._built = find_built(bundle, backend, gpu)
        self._command = build_command(
            bundle.path, backend, self._built.target, self._built.limits, self._built.options
        )
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

    @property
    def backend(self) -> str:
        """Name of the backend."""
        return self._backend

    @property
    def reason(self) -> str:
        """Why this backend was taken."""
        return self._reason

    @property
    def buckets(self) -> tuple[int, ...]:
        """Category counts that kept indices are padded to, up to the engines' largest."""
        return category_buckets(self._built.limits.max_categories)

    @property
    def built(self) -> BuiltEngines:
        """The engines on disk that were taken."""
        return self._built

    def stack(self, values: Sequence[Value]) -> Value:
        """Concatenate along the first axis, on the device."""
        arrays = [self.hold(value) if isinstance(value, np.ndarray) else value for value in values]
        return self._session.stack(arrays)

    def hold(self, array: np.ndarray) -> DeviceArray:
        """A copy on the device."""
        return self._session.upload(array)

    def __getitem__(self, stage: str) -> TensorRTEngine:
        """The engine of a stage; raises InputError when its plan is altered or cannot be loaded."""
        with self._lock:
            if stage not in self._opened:
                self._opened[stage] = self._open(stage)
            return self._opened[stage]

    def _open(self, stage: str) -> TensorRTEngine:
        built = self._built.stages[stage]
        plan = read_plan(self._built, stage)
        with self._session.device.active():
            engine = self._contexts.load(plan, built.file, self._command)
        description = self._bundle.manifest.stages[stage]
        return TensorRTEngine(stage, description, engine, built.profiles, self._contexts, self._session)


def _close(opened: dict[str, TensorRTEngine], contexts: TensorRTContexts, session: DeviceSession) -> None:
    with session.device.active():
        contexts.save_cache()
        opened.clear()
    session.close()
