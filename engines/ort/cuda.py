"""The stages of a bundle on ONNX Runtime's CUDA provider; values between stages stay on the GPU."""

import math
import re
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ...bundle import Bundle
from ...stages import AXES, BY_NAME, DEBUG_OUTPUTS, HOST_OUTPUTS, Counts, gpu_label_stage
from ..device.protocol import out_of_memory
from ..device.session import ALIGNMENT, DeviceSession, Download, Work
from ..engine import ITEM_BYTES, DeviceArray, Value
from ..profiles import Limits, category_buckets
from .batch_rows import BatchRows
from .cuda_device import OnnxRuntimeDevice, open_gpu
from .cuda_graphs import CudaGraphs
from .session import check_session

# Two ways in which ONNX Runtime says that memory is short; the number is the size of the request in bytes.
_NO_MEMORY = re.compile(r"requested (?:buffer of size|bytes of) (\d+)|out of memory", re.IGNORECASE)
# The stage whose output, that of one image, `stack` makes batches of.
_BATCHED = "pixels"


class OnnxRuntimeCudaEngine:
    """One stage, shared by all threads."""

    def __init__(
        self,
        bundle: Bundle,
        stage: str,
        device: OnnxRuntimeDevice,
        threads: int | None = None,
        buckets: Sequence[int] = (),
        rows: BatchRows | None = None,
        cuda_graphs: bool = False,
    ) -> None:
        """Open the graph of `stage`.

        Args:
            bundle: contains it.
            stage: its name.
            device: computes it.
            threads: bound those of operators that run on the CPU.
            buckets: category counts that get a session each when they first come, since a convolution keeps
                the algorithm for the shape of its last input alone and would choose anew at each change.
            rows: where the inputs of a batch go, if the stage gives one; None is each on its own.
            cuda_graphs: see `OnnxRuntimeCudaEngines`.

        Raises:
            InputError: the file is missing or altered, ONNX Runtime cannot load it, its inputs and outputs
                are not those of the manifest, or CUDA does not start.
        """
        definition = BY_NAME[stage]
        self._name = stage
        self._stage = bundle.manifest.stages[stage]
        self._file = bundle.verified(self._stage.file)
        self._device = device
        self._threads = threads
        self._rows = rows if stage == _BATCHED else None
        self._input_axes = {tensor.name: tensor.dynamic_axes for tensor in definition.inputs}
        self._output_axes = {tensor.name: tensor.dynamic_axes for tensor in definition.outputs}
        narrow = definition.narrow_axis
        by_categories = narrow is not None and AXES[narrow] is Counts.CATEGORIES
        self._bucket_axis = narrow if by_categories and not definition.free_shapes else None
        self._buckets = frozenset(buckets)
        # The session of the first bucket that comes, or of all sizes that are none.
        self._spare: Any = self._open()
        check_session(self._spare, self._stage, self._file)
        self._sessions: dict[int | None, Any] = {}
        # A graph is for one set of shapes.
        self._graphs = CudaGraphs(device, self._open) if cuda_graphs and not definition.free_shapes else None

    @property
    def name(self) -> str:
        """Name of the stage."""
        return self._name

    def run(self, inputs: Mapping[str, Any]) -> dict[str, Value]:
        """Run the stage; see `Engine.run`.

        Returns when the work is in the stream or, if the host reads an output, when that is there.

        Raises:
            InputError: the GPU's memory is too small.
        """
        return self._execute(inputs, HOST_OUTPUTS)

    def run_on_device(self, inputs: Mapping[str, Any]) -> dict[str, Value]:
        """Run the stage; see `DeviceEngine.run_on_device`."""
        return self._execute(inputs, frozenset())

    def _execute(self, inputs: Mapping[str, Any], for_host: frozenset[str]) -> dict[str, Value]:
        memory = self._device.memory
        with memory.work(f"stage {self._name}") as work:
            # Referred to until all work is in the stream, so that none of it shares memory.
            arrays = {
                name: work.upload(value) if isinstance(value, np.ndarray) else work.aligned(value)
                for name, value in inputs.items()
            }
            sizes = {
                axis: arrays[name].shape[position]
                for name, axes in self._input_axes.items()
                for position, axis in axes.items()
            }
            shapes = self._output_shapes(sizes)
            host = _HostOutputs(work, {name: shapes[name] for name in shapes if name in for_host})
            kept = {name: self._allocate(work, *shapes[name]) for name in shapes if name not in for_host}
            self._compute(work, sizes, arrays, kept | host.arrays)
            host.start_download(work)
            del arrays
        return kept | host.receive(memory, work)

    def _compute(
        self,
        work: Work,
        sizes: Mapping[str, int],
        inputs: Mapping[str, DeviceArray],
        outputs: Mapping[str, DeviceArray],
    ) -> None:
        try:
            if self._graphs is None or not self._graphs.run(work, inputs, outputs):
                session = self._session(sizes)
                self._device.run(session, self._device.bind(session, inputs, outputs))
        except Exception as error:
            # ONNX Runtime's exceptions share no base class of their own.
            if match := _NO_MEMORY.search(str(error)):
                size = int(match[1]) if match[1] else None
                raise out_of_memory(f"stage {self._name}", size, None) from error
            raise

    def _session(self, sizes: Mapping[str, int]) -> Any:
        """The session for these sizes of the dynamic axes."""
        size = sizes[self._bucket_axis] if self._bucket_axis else None
        key = size if size in self._buckets else None
        if key not in self._sessions:
            self._sessions[key], self._spare = self._spare or self._open(), None
        return self._sessions[key]

    def _open(self, cuda_graph: bool = False) -> Any:
        return self._device.open_session(self._file, self._file, self._threads, cuda_graph)

    def _output_shapes(self, sizes: Mapping[str, int]) -> dict[str, tuple[str, tuple[int, ...]]]:
        """Dtype and shape of every output but those for debugging."""
        shapes = {}
        for tensor in self._stage.outputs:
            if tensor.name not in DEBUG_OUTPUTS:
                axes = self._output_axes[tensor.name]
                shape = [sizes[axes[at]] if at in axes else int(size) for at, size in enumerate(tensor.shape)]
                shapes[tensor.name] = (tensor.dtype, tuple(shape))
        return shapes

    def _allocate(self, work: Work, dtype: str, shape: tuple[int, ...]) -> DeviceArray:
        return work.empty(dtype, shape) if self._rows is None else self._rows.take(work, dtype, shape)


class _HostOutputs:
    """The outputs of a run that the host reads, side by side on the device, so that one copy brings all."""

    def __init__(self, work: Work, shapes: Mapping[str, tuple[str, tuple[int, ...]]]) -> None:
        """`shapes` gives dtype and shape by name; raises InputError when there is no memory for them."""
        starts: dict[str, int] = {}
        size = 0
        for name, (dtype, shape) in shapes.items():
            starts[name] = size
            size += -(-math.prod(shape) * ITEM_BYTES[dtype] // ALIGNMENT) * ALIGNMENT
        self._starts = starts
        self._download: Download | None = None
        self._whole = work.empty("uint8", (size,)) if starts else None
        self.arrays = {
            name: DeviceArray(self._whole.owner, self._whole.pointer + starts[name], dtype, shape)
            for name, (dtype, shape) in shapes.items()
            if self._whole is not None
        }

    def start_download(self, work: Work) -> None:
        """Put the copy into the stream; raises InputError when the host has no memory for it."""
        if self._whole is not None:
            self._download = work.download(self._whole)

    def receive(self, memory: DeviceSession, work: Work) -> dict[str, np.ndarray]:
        """The outputs on the host; waits for `work` without blocking other threads."""
        if self._download is None:
            return {}
        received = memory.received(work, self._download)
        outputs = {}
        for name, array in self.arrays.items():
            start = self._starts[name]
            outputs[name] = received[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
        return outputs


class OnnxRuntimeCudaEngines:
    """Stages on the GPU."""

    backend = "onnxruntime-cuda"
    # It takes any number of categories; these are the counts that shapes are padded to.
    buckets = category_buckets(Limits().max_categories)
    decodes_at_once = 2
    images_at_once = None
    folds_vocabularies = False

    def __init__(
        self,
        bundle: Bundle,
        threads: int | None,
        reason: str,
        device: OnnxRuntimeDevice | None = None,
        cuda_graphs: bool = False,
    ) -> None:
        """See `OnnxRuntimeEngines`.

        `cuda_graphs` launches all kernels of a stage at once, as they were recorded when the stage first ran
        with the same shapes. Inputs and outputs are then copied to and from fixed buffers, and each recording
        keeps the weights of its stage and the memory that it works in. It is off until a GPU has shown what
        it gains.

        Raises:
            InputError: ONNX Runtime is missing, broken or without CUDA, a library of CUDA is missing, or CUDA
                or cuDNN does not start.
        """
        self.reason = reason
        self._bundle = bundle
        self._threads = threads
        self._device = device or open_gpu()
        self._cuda_graphs = cuda_graphs
        self._rows = BatchRows()
        self._opened: dict[str, OnnxRuntimeCudaEngine] = {}
        self.label_stage = gpu_label_stage(bundle.manifest.stages)
        self._lock = threading.Lock()
        # Sessions end before the device that they use, at the latest when the interpreter does.
        weakref.finalize(self, _close, self._opened, self._device)

    def stack(self, values: Sequence[Value]) -> DeviceArray:
        """Concatenate along the first axis, on the GPU; without a copy where the values lie side by side."""
        arrays = [self.to_device(value) if isinstance(value, np.ndarray) else value for value in values]
        if len(arrays) == 1:
            return arrays[0]
        with self._device.memory.work("joining values") as work:
            return self._rows.stack(work, arrays)

    def to_device(self, array: np.ndarray) -> DeviceArray:
        """A copy on the GPU."""
        return self._device.memory.upload(array)

    def warmed_up(self) -> None:
        """Nothing is compiled that could be kept."""

    def to_host(self, value: Value) -> np.ndarray:
        """A copy on the host; waits for the work before it, while other threads run on."""
        return value if isinstance(value, np.ndarray) else self.download(value)()

    def download(self, value: DeviceArray) -> Callable[[], np.ndarray]:
        """See `DeviceEngines.download`."""
        return self._device.memory.download(value)

    def __getitem__(self, stage: str) -> OnnxRuntimeCudaEngine:
        """The engine of a stage; raises InputError when its file is missing, altered or cannot be loaded."""
        with self._lock:
            if stage not in self._opened:
                self._opened[stage] = OnnxRuntimeCudaEngine(
                    self._bundle,
                    stage,
                    self._device,
                    self._threads,
                    self.buckets or (),
                    self._rows,
                    self._cuda_graphs,
                )
            return self._opened[stage]


def _close(opened: dict[str, OnnxRuntimeCudaEngine], device: OnnxRuntimeDevice) -> None:
    """Close the sessions while the device is still referred to."""
    opened.clear()
