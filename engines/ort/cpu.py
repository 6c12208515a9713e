"""The stages of a bundle on ONNX Runtime's CPU provider."""

import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ...bundle import ENGINES_FOLDER, Bundle
from ...errors import InputError
from ...files import is_folder
from ...stages import FOLDED_SCOUT
from ..engine import Engine
from .session import CPU_PROVIDER, check_eight_bit, check_runs_on_cpu, check_session, library, open_session

if TYPE_CHECKING:
    from ..store import BuiltEngines


class OnnxRuntimeEngine:
    """One stage in one session, shared by all threads."""

    def __init__(
        self, bundle: Bundle, stage: str, threads: int | None = None, optimised: bytes | None = None
    ) -> None:
        """Open the graph of `stage`, or the plan that `sed-trt build` made from it, where that is given.

        `threads` are those within one operator, None for one per CPU core.

        Raises:
            InputError: ONNX Runtime is missing or broken, the file is missing or altered, ONNX Runtime
                cannot load it, its inputs and outputs are not those of the manifest, or it is of bfloat16.
        """
        description = bundle.manifest.stages[stage]
        library()
        path = bundle.verified(description.file)
        check_runs_on_cpu(bundle, description)
        self._name = stage
        self._session = open_session(optimised or path, path, threads, [CPU_PROVIDER])
        check_session(self._session, description, path)
        self._outputs = [output.name for output in description.outputs]

    @property
    def name(self) -> str:
        """Name of the stage."""
        return self._name

    def run(self, inputs: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """Run the stage; see `Engine.run`. All outputs are numpy arrays."""
        return dict(zip(self._outputs, self._session.run(self._outputs, dict(inputs)), strict=True))


class OnnxRuntimeEngines:
    """Stages on the CPU, from the graphs that `sed-trt build` optimised where it did."""

    backend = "onnxruntime"
    buckets = None
    decodes_at_once = 1

    def __init__(self, bundle: Bundle, threads: int | None, reason: str, images_at_once: int = 1) -> None:
        """`threads` bounds the CPU threads of one operator; None is one per core.

        Runs of a stage at a time share its threads.

        Raises:
            InputError: ONNX Runtime is missing or broken, or the bundle is of bfloat16 or of an
                earlier 8-bit kind.
        """
        library()
        check_runs_on_cpu(bundle, *bundle.manifest.stages.values())
        check_eight_bit(bundle)
        self.reason = reason
        self.images_at_once = images_at_once
        self.folds_vocabularies = FOLDED_SCOUT.name in bundle.manifest.stages
        self._bundle = bundle
        self._threads = threads
        self._built = _find_optimised(bundle)
        self._opened: dict[str, Engine] = {}
        self._lock = threading.Lock()

    def stack(self, values: Sequence[Any]) -> Any:
        """Concatenate along the first axis; one array alone is given back as it is."""
        return values[0] if len(values) == 1 else np.concatenate(values)

    def to_device(self, array: np.ndarray) -> np.ndarray:
        """The array itself: the CPU computes where it is."""
        return array

    def warmed_up(self) -> None:
        """Nothing is left to do."""

    def __getitem__(self, stage: str) -> Engine:
        """The engine of a stage; raises InputError when its file is missing, altered or cannot be loaded."""
        with self._lock:
            if stage not in self._opened:
                self._opened[stage] = self._open(stage)
            return self._opened[stage]

    def _open(self, stage: str) -> OnnxRuntimeEngine:
        optimised = None
        if self._built is not None:
            from ..store import read_plan

            optimised = read_plan(self._built, stage)
        return OnnxRuntimeEngine(self._bundle, stage, self._threads, optimised)


def _find_optimised(bundle: Bundle) -> "BuiltEngines | None":
    """The graphs that `sed-trt build` optimised with the installed version; None means the bundle's own."""
    # The store is imported only where something was built.
    if not is_folder(bundle.path / ENGINES_FOLDER):
        return None
    from ..store import find_built

    try:
        return find_built(bundle, "onnxruntime", None)
    except InputError:
        return None
