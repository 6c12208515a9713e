"""The backends by name, and the engines of a bundle opened on first use."""

import threading
from typing import Protocol

from ..errors import InputError
from .bundle import Bundle
from .engine import Engine
from .onnxruntime_engine import OnnxRuntimeEngine, cuda_offered, library

BACKENDS = ("auto", "onnxruntime", "onnxruntime-cuda")
NO_CUDA = "this ONNX Runtime has no CUDA provider"


class Engines(Protocol):
    """The engines of one bundle by stage name."""

    @property
    def backend(self) -> str:
        """Name of the backend that runs the stages; never "auto"."""

    @property
    def reason(self) -> str:
        """Why this backend was taken, as one phrase."""

    def __getitem__(self, stage: str) -> Engine:
        """The engine of a stage."""


class OnnxRuntimeEngines:
    """Stages run by ONNX Runtime, each opened when it is first asked for."""

    def __init__(self, bundle: Bundle, cuda: bool, threads: int | None, reason: str) -> None:
        self._bundle = bundle
        self._cuda = cuda
        self._threads = threads
        self._reason = reason
        self._opened: dict[str, Engine] = {}
        self._lock = threading.Lock()

    @property
    def backend(self) -> str:
        """Name of the backend."""
        return "onnxruntime-cuda" if self._cuda else "onnxruntime"

    @property
    def reason(self) -> str:
        """Why this backend was taken."""
        return self._reason

    def __getitem__(self, stage: str) -> Engine:
        """The engine of a stage; raises InputError when its file is missing, altered or cannot be loaded."""
        with self._lock:
            if stage not in self._opened:
                self._opened[stage] = OnnxRuntimeEngine(self._bundle, stage, self._cuda, self._threads)
            return self._opened[stage]


def open_engines(bundle: Bundle, backend: str | None = "auto", threads: int | None = None) -> Engines:
    """The engines of `bundle` on a backend; None is "auto", the fastest that works here.

    `threads` bounds the CPU threads of ONNX Runtime; None is one per core.

    Raises:
        InputError: unknown backend, fewer than one thread, or the backend is not there or broken.
    """
    backend = "auto" if backend is None else backend
    if backend not in BACKENDS:
        raise InputError(f"backend: {backend!r} is unknown; choose one of {', '.join(BACKENDS)}")
    if threads is not None and threads < 1:
        raise InputError(f"threads: {threads} is too few, expected at least 1; leave it out for one per core")
    library()
    if backend == "onnxruntime":
        return OnnxRuntimeEngines(bundle, False, threads, "asked for")
    if not cuda_offered():
        if backend == "onnxruntime-cuda":
            raise InputError(
                f"backend onnxruntime-cuda: {NO_CUDA}; install onnxruntime-gpu instead of onnxruntime, "
                "or use the backend onnxruntime"
            )
        return OnnxRuntimeEngines(bundle, False, threads, NO_CUDA)
    reason = "CUDA starts here" if backend == "auto" else "asked for"
    cuda = OnnxRuntimeEngines(bundle, True, threads, reason)
    try:
        # Only a session tells whether CUDA starts; `label` is the smallest graph.
        cuda["label"]
    except InputError as error:
        if backend != "auto":
            raise
        return OnnxRuntimeEngines(bundle, False, threads, f"CUDA did not start ({error})")
    return cuda


def obstacle(backend: str) -> str | None:
    """Why one of `BACKENDS` cannot be used here, as one phrase, as far as that shows without a graph."""
    try:
        offered = cuda_offered()
    except InputError as error:
        return str(error)
    return NO_CUDA if backend == "onnxruntime-cuda" and not offered else None
