"""The stages of a bundle on OpenVINO. Numpy arrays travel between them, bfloat16 ones as uint16."""

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from ...bundle import ENGINES_FOLDER, Bundle
from ...errors import InputError
from ...files import is_folder
from ...stages import BY_NAME, FOLDED_SCOUT
from ..engine import Engine
from .library import error_line, library, version
from .models import compile_stage, takes_one_image
from .precision import Arithmetic, bundle_arithmetic, round_to_bf16, tensor_dtypes

if TYPE_CHECKING:
    from .plans import Plans


class OpenVinoEngine:
    """One stage in one compiled model, with an infer request for each thread that runs it at a time."""

    def __init__(
        self,
        bundle: Bundle,
        stage: str,
        chosen: Arithmetic,
        threads: int | None = None,
        compiled: Any | None = None,
        counters: bool = False,
        runs_at_once: int = 1,
    ) -> None:
        """Compile the graph of `stage`, unless its `openvino.CompiledModel` is given.

        `chosen` is what is computed; `threads` bounds the CPU threads of a run, None is an equal share of the
        cores; `counters` is for the method of that name; `runs_at_once` are computed side by side.

        Raises:
            InputError: OpenVINO is missing or broken, the file is missing or altered, OpenVINO cannot load
                it, or its inputs and outputs are not those of the manifest.
        """
        description = bundle.manifest.stages[stage]
        self._name = stage
        self._file = bundle.path / description.file
        # Those of dynamic axes are replaced in each run.
        self._shapes = {
            tensor.name: [size if isinstance(size, int) else 0 for size in tensor.shape]
            for tensor in description.outputs
        }
        self._dtypes = tensor_dtypes(stage, description, chosen)
        self._one_image = takes_one_image(stage)
        self._compiled = (
            compiled
            if compiled is not None
            else compile_stage(bundle, stage, chosen, threads, counters, runs_at_once)
        )
        self._idle: list[Any] = []

    @property
    def name(self) -> str:
        """Name of the stage."""
        return self._name

    def run(self, inputs: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """Run the stage; see `Engine.run`. All outputs are numpy arrays, those of bfloat16 as uint16.

        Raises:
            InputError: OpenVINO cannot run the stage on these inputs.
        """
        outputs = self._new_outputs(inputs)
        runs = [{**inputs, **outputs}]
        if self._one_image:
            (images,) = inputs.values()
            runs = [
                {name: array[row : row + 1] for name, array in runs[0].items()} for row in range(len(images))
            ]
        try:
            self._run(runs)
        except RuntimeError as error:
            raise InputError(
                f"{self._file}: OpenVINO {version()} cannot run it ({error_line(error)}); use fewer "
                "categories or smaller images, or the backend onnxruntime"
            ) from error
        return outputs

    def counters(self) -> dict[str, tuple[str, float]]:
        """By the name of each operator, its type and its mean milliseconds over all runs so far.

        Only of an engine with `counters` that one thread runs.
        """
        with self._request() as request:
            return {
                each.node_name: (each.node_type, 1000 * each.real_time.total_seconds())
                for each in request.profiling_info
            }

    def _run(self, runs: Sequence[Mapping[str, np.ndarray]]) -> None:
        with ExitStack() as stack:
            # OpenVINO reads and writes the arrays in place: their tensors live until the requests are done.
            requests, tensors = [], []
            for arrays in runs:
                request = stack.enter_context(self._request())
                for name, array in arrays.items():
                    tensor = _shared_tensor(array, self._dtypes[name])
                    request.set_tensor(name, tensor)
                    tensors.append(tensor)
                requests.append(request)
            for request in requests:
                stack.callback(request.wait)
                request.start_async()

    @contextmanager
    def _request(self) -> Iterator[Any]:
        """An infer request that no other thread uses. All its tensors are those of an earlier run."""
        # A list's pop and append are safe in threads.
        try:
            request = self._idle.pop()
        except IndexError:
            request = self._compiled.create_infer_request()
        yield request
        self._idle.append(request)

    def _new_outputs(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Empty arrays for the outputs, which the caller may keep: no later run writes to them."""
        sizes = {
            axis: inputs[tensor.name].shape[position]
            for tensor in BY_NAME[self._name].inputs
            for position, axis in tensor.dynamic_axes.items()
        }
        outputs = {}
        for tensor in BY_NAME[self._name].outputs:
            shape = list(self._shapes[tensor.name])
            for position, axis in tensor.dynamic_axes.items():
                shape[position] = sizes[axis]
            outputs[tensor.name] = np.empty(shape, dtype=_numpy_dtype(self._dtypes[tensor.name]))
        return outputs


class OpenVinoEngines:
    """Stages on the CPU."""

    backend = "openvino"
    buckets = None
    decodes_at_once = 1

    def __init__(self, bundle: Bundle, threads: int | None, reason: str, images_at_once: int = 1) -> None:
        """`threads` bounds the CPU threads of a run; None is an equal share of the physical cores.

        Raises:
            InputError: OpenVINO is missing or broken, or cannot compute the bundle's 8-bit products.
        """
        self.arithmetic = bundle_arithmetic(bundle)
        self.reason = "; ".join(each for each in (reason, self.arithmetic.note) if each)
        self.folds_vocabularies = FOLDED_SCOUT.name in bundle.manifest.stages
        self._bundle = bundle
        self._threads = threads
        self.images_at_once = images_at_once
        self._plans = self._find_plans()
        self._opened: dict[str, Engine] = {}
        self._lock = threading.Lock()
        # Only a compiled model tells whether OpenVINO works on this processor; `label` is the smallest graph.
        self["label"]

    def stack(self, values: Sequence[Any]) -> Any:
        """Concatenate along the first axis; one array alone is given back as it is."""
        return values[0] if len(values) == 1 else np.concatenate(values)

    def to_device(self, array: np.ndarray) -> np.ndarray:
        """Embeddings, float32, as stages take them: rounded to BF16, as uint16, where that is computed."""
        return round_to_bf16(array) if self.arithmetic.dtype == "bfloat16" else array

    def warmed_up(self) -> None:
        """Nothing is left to do."""

    def __getitem__(self, stage: str) -> Engine:
        """The engine of a stage; raises InputError when its file is missing, altered or cannot be loaded."""
        with self._lock:
            if stage not in self._opened:
                compiled = self._from_plan(stage)
                self._opened[stage] = OpenVinoEngine(
                    self._bundle,
                    stage,
                    self.arithmetic,
                    self._threads,
                    compiled,
                    runs_at_once=self.images_at_once,
                )
            return self._opened[stage]

    def _from_plan(self, stage: str) -> Any | None:
        """The compiled model that `sed-trt build` stored; None where there is none that can be used."""
        if self._plans is None:
            return None
        try:
            return self._plans.open_stage(stage, self._threads, self.images_at_once)
        except InputError as error:
            # The other stages would most likely fail alike.
            self._plans = None
            self._note_graphs(str(error))
            return None

    def _find_plans(self) -> "Plans | None":
        """What `sed-trt build` stored; None where nothing was built, or nothing fits."""
        # The store is imported only where something was built.
        if not is_folder(self._bundle.path / ENGINES_FOLDER):
            return None
        from .plans import Plans

        plans = Plans(self._bundle, self.arithmetic)
        if plans.problem is not None:
            self._note_graphs(plans.problem)
        return plans

    def _note_graphs(self, problem: str) -> None:
        self.reason += f"; compiled from the bundle's graphs: {problem}"


def _numpy_dtype(dtype: str) -> Any:
    return np.uint16 if dtype == "bfloat16" else np.dtype(dtype)


def _shared_tensor(array: np.ndarray, dtype: str) -> Any:
    """An `openvino.Tensor` over the memory of an array, which must outlive it."""
    openvino = library()
    if not array.flags.writeable:
        # OpenVINO takes no array that it could not write to, though it only reads its inputs.
        array = array.copy()
    if dtype == "bfloat16":
        return openvino.Tensor(array, list(array.shape), openvino.Type.bf16)
    return openvino.Tensor(array, shared_memory=True)
