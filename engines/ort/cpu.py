"""The stages of a bundle on ONNX Runtime's CPU provider."""

import threading
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ...bundle import Bundle
from ...errors import InputError
from ..engine import Engine
from ..store import BuiltEngines, find_built, read_plan
from .session import CPU_PROVIDER, check_runs_on_cpu, library, open_session


class OnnxRuntimeEngine:
    """One stage in one session, shared by all threads."""

    def __init__(
        self, bundle: Bundle, stage: str, threads: int | None = None, optimised: bytes | None = None
    ) -> None:
        """Open the graph of `stage`, or what `sed-trt build` made of it, where that is given.

        `threads` are those within one operator, None for one per CPU core.

        Raises:
            InputError: ONNX Runtime is missing or broken, the file is missing or altered, ONNX Runtime
                cannot load it, or it is of bfloat16.
        """
        description = bundle.manifest.stages[stage]
        library()
        path = bundle.verified(description.file)
        check_runs_on_cpu(bundle, description)
        self._name = stage
        self._session = open_session(optimised or path, path, threads, [CPU_PROVIDER])
        self._outputs = [output.name for output in self._session.get_outputs()]

    @property
    def name(self) -> str:
        """Name of the stage."""
        return self._name

    def run(self, inputs: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """Run the stage; see `Engine.run`."""
        return dict(zip(self._outputs, self._session.run(self._outputs, dict(inputs)), strict=True))


class OnnxRuntimeEngines:
    """Stages on the CPU, from the graphs that `sed-trt build` optimised where it did."""

    backend = "onnxruntime"
    buckets = None
    decodes_at_once = 1

    def __init__(self, bundle: Bundle, threads: int | None, reason: str) -> None:
        """`threads` bounds the CPU threads of one operator; None is one per core.

        Raises:
            InputError: ONNX Runtime is missing or broken, or the bundle is of bfloat16.
        """
        library()
        check_runs_on_cpu(bundle, *bundle.manifest.stages.values())
        self.reason = reason
        self._bundle = bundle
        self._threads = threads
        self._built = _find_optimised(bundle)
        self._opened: dict[str, Engine] = {}
        self._lock = threading.Lock()

    def stack(self, values: Sequence[Any]) -> Any:
        """Concatenate along the first axis; one array alone is given back as it is."""
        return values[0] if len(values) == 1 else np.concatenate(values)

    def to_device(self, array: np.ndarray) -> np.ndarray:
        """The array itself."""
        return array

    def __getitem__(self, stage: str) -> Engine:
        """The engine of a stage; raises InputError when its file is missing, altered or cannot be loaded."""
        with self._lock:
            if stage not in self._opened:
                optimised = read_plan(self._built, stage) if self._built else None
                self._opened[stage] = OnnxRuntimeEngine(self._bundle, stage, self._threads, optimised)
            return self._opened[stage]


def _find_optimised(bundle: Bundle) -> BuiltEngines | None:
    try:
        return find_built(bundle, "onnxruntime", None)
    except InputError:
        # The graphs of the bundle do as well.
        return None
