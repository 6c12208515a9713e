"""The GPU as ONNX Runtime uses it: sessions that put their work into one stream, and memory beside theirs."""

import threading
import weakref
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import numpy as np

from ...errors import InputError
from ..device.session import DeviceSession
from ..engine import DeviceArray
from .cuda_libraries import load_cuda_libraries
from .cudart import CudaRuntimeDevice
from .host_device import HostDevice
from .session import CPU_PROVIDER, CUDA_PROVIDER, library, open_session, register_cuda_arena

_CUDA_OPTIONS = {
    # The default tries every algorithm of cuDNN for every new shape: seconds for each bucket and stage.
    "cudnn_conv_algo_search": "HEURISTIC",
    # The default doubles the memory each time it grows, for each session.
    "arena_extend_strategy": "kSameAsRequested",
    # On by default; what the graphs say is float32 must be.
    "use_tf32": "0",
}
# ONNX's number for the type that numpy lacks.
BFLOAT16 = 16
# An ONNX model of one convolution in float32: of `x` (1, 1, 3, 3) with the kernel `w` (1, 1, 3, 3) to `y`
# (1, 1, 1, 1). It is kept as bytes because the onnx package, which writes such models, is not among the
# runtime's requirements.
CONV_MODEL = (
    b'\x08\x08:o\n\x0f\n\x01x\n\x01w\x12\x01y"\x04Conv\x12\x05probe'
    b"Z\x1b\n\x01x\x12\x16\n\x14\x08\x01\x12\x10\n\x02\x08\x01\n\x02\x08\x01\n\x02\x08\x03\n\x02\x08\x03"
    b"Z\x1b\n\x01w\x12\x16\n\x14\x08\x01\x12\x10\n\x02\x08\x01\n\x02\x08\x01\n\x02\x08\x03\n\x02\x08\x03"
    b"b\x1b\n\x01y\x12\x16\n\x14\x08\x01\x12\x10\n\x02\x08\x01\n\x02\x08\x01\n\x02\x08\x01\n\x02\x08\x01B\x02\x10\r"
)

_lock = threading.Lock()


class OnnxRuntimeDevice:
    """The device of ONNX Runtime sessions: "cuda", or "cpu" to run the same code without a GPU.

    Attributes:
        kind: ONNX Runtime's name for it.
        memory: device memory, copies to and from it, and the lock that orders all work in the stream.
    """

    def __init__(self, kind: str = "cuda") -> None:
        """Load CUDA's libraries, open the GPU and run one convolution on it; `open_gpu` does so once.

        Raises:
            InputError: ONNX Runtime is missing, broken or without CUDA, a library is missing, or CUDA or
                cuDNN does not start.
        """
        self.kind = kind
        self._options = library().RunOptions()
        self._thread: ThreadPoolExecutor | None = None
        if kind == "cpu":
            self.memory = DeviceSession(HostDevice())
            return
        self.memory = DeviceSession(CudaRuntimeDevice(load_cuda_libraries()))
        weakref.finalize(self, self.memory.close)
        register_cuda_arena()
        # By default each run waits for its end on the GPU. Who reads a result on the host waits for that.
        self._options.add_run_config_entry("disable_synchronize_execution_providers", "1")
        self._try_convolution()

    def open_session(
        self, model: Path | bytes, file: Path, threads: int | None, cuda_graph: bool = False
    ) -> Any:
        """A session whose work goes into the stream of `memory`; see `session.open_session`.

        With `cuda_graph` its first run is recorded, which later ones repeat: they must be in the same thread,
        and their inputs and outputs at the same addresses.

        Raises:
            InputError: ONNX Runtime cannot load the graph or cannot record it, or CUDA does not start.
        """
        if self.kind == "cpu":
            return open_session(model, file, threads, [CPU_PROVIDER], shared_arena=not cuda_graph)
        options = {
            **_CUDA_OPTIONS,
            "user_compute_stream": str(self.memory.device.stream),
            "enable_cuda_graph": str(int(cuda_graph)),
        }
        providers = [(CUDA_PROVIDER, options), CPU_PROVIDER]
        # A CUDA graph writes to the memory that its session had when it was recorded.
        session = open_session(model, file, threads, providers, shared_arena=not cuda_graph)
        # ONNX Runtime falls back to the CPU with no more than a line in its log.
        if CUDA_PROVIDER not in session.get_providers():
            raise InputError(
                "backend onnxruntime-cuda: CUDA did not start, expected an NVIDIA GPU, its driver and cuDNN; "
                "use the backend onnxruntime or see `sed-trt doctor`"
            )
        return session

    def bind(
        self, session: Any, inputs: Mapping[str, DeviceArray], outputs: Mapping[str, DeviceArray]
    ) -> Any:
        """A binding of a session's inputs and outputs to the addresses of arrays on the device."""
        binding = session.io_binding()
        for bind, arrays in ((binding.bind_input, inputs), (binding.bind_output, outputs)):
            for name, array in arrays.items():
                bind(name, self.kind, 0, element_type(array.dtype), list(array.shape), array.pointer)
        return binding

    def run(self, session: Any, binding: Any) -> None:
        """Put one run into the stream, within `memory.work`."""
        session.run_with_iobinding(binding, self._options)

    def run_in_one_thread(self, session: Any, binding: Any) -> None:
        """`run`, always in the same thread: ONNX Runtime keeps a CUDA graph for the one that recorded it."""
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="sed-trt-cuda-graphs")
        self._thread.submit(self.run, session, binding).result()

    def _try_convolution(self) -> None:
        # CUDA can start without cuDNN, which is loaded for the first convolution.
        values = {name: np.ones((1, 1, 3, 3), np.float32) for name in ("x", "w")}
        session = self.open_session(CONV_MODEL, Path("convolution"), 1)
        try:
            session.run(None, values)
        except Exception as error:
            # ONNX Runtime's exceptions share no base class of their own.
            reason = str(error).strip().splitlines()[0]
            raise InputError(
                f"backend onnxruntime-cuda: a convolution does not run on the GPU ({reason}), expected "
                "cuDNN 9; in sed-trt's folder, pip install -e '.[gpu]', or use the backend onnxruntime"
            ) from error


_opened: WeakValueDictionary[str, OnnxRuntimeDevice] = WeakValueDictionary()


def open_gpu() -> OnnxRuntimeDevice:
    """The GPU, one object for the whole process: all sessions share memory, which one stream orders.

    It is closed with the last reference to it.

    Raises:
        InputError: as `OnnxRuntimeDevice`.
    """
    with _lock:
        device = _opened.get("cuda")
        if device is None:
            _opened["cuda"] = device = OnnxRuntimeDevice()
        return device


def element_type(dtype: str) -> Any:
    """What ONNX Runtime's bindings call the dtype of this name."""
    return BFLOAT16 if dtype == "bfloat16" else np.dtype(dtype).type
