"""What the package uses of cuda.bindings.driver, with names and behaviour as in cuda-bindings 13.5."""

import ctypes
import sys
import threading
from collections.abc import Callable, Mapping
from enum import IntEnum
from types import ModuleType
from typing import Any

from sed_trt.tests.fakes.pycuda import FULL


class CUresult(IntEnum):
    """The status that every call gives first."""

    CUDA_SUCCESS = 0
    CUDA_ERROR_OUT_OF_MEMORY = 2
    CUDA_ERROR_NOT_READY = 600
    CUDA_ERROR_STREAM_CAPTURE_INVALIDATED = 901
    CUDA_ERROR_UNKNOWN = 999


class Handle:
    """A context, stream, event or graph."""

    def __init__(self, number: int = 99) -> None:
        self.number = number

    def __int__(self) -> int:
        return self.number


def fake_bindings(
    driver: int = 13000,
    devices: int = 1,
    start_error: str | None = None,
    failures: Mapping[str, str] | None = None,
) -> ModuleType:
    """A module `cuda.bindings.driver`; its `calls` lists the calls, and `done` says whether events are.

    `failures` has the reasons for which "context", "stream", "event" (recording one), "pinned" memory,
    "query" (of an event) or "end" (of a capture) fails; `FULL` is too little memory.
    """
    failing = dict(failures or {})
    cuda: Any = ModuleType("cuda.bindings.driver")
    cuda.calls = []
    cuda.done = True
    pinned: dict[int, Any] = {}
    texts: dict[CUresult, str] = {}
    stacks = threading.local()

    def status(what: str) -> CUresult:
        if what not in failing:
            return CUresult.CUDA_SUCCESS
        result = CUresult.CUDA_ERROR_OUT_OF_MEMORY if failing[what] == FULL else CUresult.CUDA_ERROR_UNKNOWN
        texts[result] = f"{what} failed: {failing[what]}"
        return result

    def check() -> None:
        assert getattr(stacks, "contexts", []), "no current context"

    def answer(*values: Any) -> tuple[Any, ...]:
        return (CUresult.CUDA_SUCCESS, *values)

    def function(call: Callable[..., tuple[Any, ...]]) -> Callable[..., tuple[Any, ...]]:
        setattr(cuda, call.__name__, call)
        return call

    @function
    def cuInit(flags: int) -> tuple[Any, ...]:  # noqa: N802
        if start_error is None:
            return answer()
        if "libcuda" in start_error:
            raise RuntimeError(start_error)
        failing["start"] = start_error
        return (status("start"),)

    @function
    def cuGetErrorName(error: CUresult) -> tuple[Any, ...]:  # noqa: N802
        return answer(error.name.encode())

    @function
    def cuGetErrorString(error: CUresult) -> tuple[Any, ...]:  # noqa: N802
        return answer(texts[error].encode()) if error in texts else answer(None)

    @function
    def cuDeviceGetName(length: int, device: int) -> tuple[Any, ...]:  # noqa: N802
        return answer(f"Fake {device}".encode().ljust(length, b"\0"))

    @function
    def cuDeviceGetAttribute(attribute: str, device: int) -> tuple[Any, ...]:  # noqa: N802
        return answer({"major": 8, "minor": 6}[attribute])

    @function
    def cuDevicePrimaryCtxRetain(device: int) -> tuple[Any, ...]:  # noqa: N802
        result = status("context")
        return (result, None if result else Handle())

    @function
    def cuCtxPushCurrent(context: Handle) -> tuple[Any, ...]:  # noqa: N802
        assert isinstance(context, Handle)
        stacks.contexts = [*getattr(stacks, "contexts", []), context]
        return answer()

    @function
    def cuCtxPopCurrent() -> tuple[Any, ...]:  # noqa: N802
        return answer(stacks.contexts.pop())

    @function
    def cuStreamCreate(flags: int) -> tuple[Any, ...]:  # noqa: N802
        check()
        cuda.calls.append(("stream", flags))
        result = status("stream")
        return (result, None if result else Handle())

    @function
    def cuMemAlloc(size: int) -> tuple[Any, ...]:  # noqa: N802
        check()
        if size > 1000:
            texts[CUresult.CUDA_ERROR_OUT_OF_MEMORY] = "out of memory"
            return (CUresult.CUDA_ERROR_OUT_OF_MEMORY, None)
        return answer(4096 * size)

    @function
    def cuMemFree(pointer: int) -> tuple[Any, ...]:  # noqa: N802
        check()
        cuda.calls.append(("free", pointer // 4096))
        return answer()

    @function
    def cuMemGetInfo() -> tuple[Any, ...]:  # noqa: N802
        check()
        return answer(600, 1000)

    @function
    def cuMemHostAlloc(size: int, flags: int) -> tuple[Any, ...]:  # noqa: N802
        check()
        if result := status("pinned"):
            return (result, None)
        memory = ctypes.create_string_buffer(size)
        pinned[ctypes.addressof(memory)] = memory
        return answer(ctypes.addressof(memory))

    @function
    def cuMemFreeHost(pointer: int) -> tuple[Any, ...]:  # noqa: N802
        check()
        del pinned[pointer]
        return answer()

    @function
    def cuEventCreate(flags: int) -> tuple[Any, ...]:  # noqa: N802
        check()
        cuda.calls.append(("event", flags))
        return answer(Handle())

    @function
    def cuEventRecord(event: Handle, stream: Handle) -> tuple[Any, ...]:  # noqa: N802
        assert isinstance(stream, Handle)
        return (status("event"),)

    @function
    def cuEventQuery(event: Handle) -> tuple[Any, ...]:  # noqa: N802
        if result := status("query"):
            return (result,)
        return (CUresult.CUDA_SUCCESS if cuda.done else CUresult.CUDA_ERROR_NOT_READY,)

    @function
    def cuEventSynchronize(event: Handle) -> tuple[Any, ...]:  # noqa: N802
        check()
        return answer()

    @function
    def cuStreamBeginCapture(stream: Handle, mode: str) -> tuple[Any, ...]:  # noqa: N802
        check()
        cuda.calls.append(("begin", mode))
        return answer()

    @function
    def cuStreamEndCapture(stream: Handle) -> tuple[Any, ...]:  # noqa: N802
        check()
        cuda.calls.append(("end",))
        result = status("end")
        return (result, None if result else Handle(1))

    @function
    def cuGraphInstantiate(graph: Handle, flags: int) -> tuple[Any, ...]:  # noqa: N802
        check()
        return answer(Handle(2))

    def noted(name: str) -> None:
        """A call that gives nothing and is written down with its first argument as a number."""

        def call(handle: Any, *others: Any) -> tuple[Any, ...]:
            check()
            cuda.calls.append((name, int(handle)))
            return answer()

        setattr(cuda, name, call)

    def copy(name: str, called: str) -> None:
        def call(*arguments: Any) -> tuple[Any, ...]:
            check()
            assert isinstance(arguments[-1], Handle)
            assert all(isinstance(argument, int) for argument in arguments[:-1])
            cuda.calls.append((called, *arguments[:-1]))
            return answer()

        setattr(cuda, name, call)

    for name in (
        "cuGraphDestroy",
        "cuGraphExecDestroy",
        "cuGraphLaunch",
        "cuEventDestroy",
        "cuStreamDestroy",
    ):
        noted(name)
    copy("cuMemcpyHtoDAsync", "memcpy_htod_async")
    copy("cuMemcpyDtoHAsync", "memcpy_dtoh_async")
    copy("cuMemcpyDtoDAsync", "memcpy_dtod_async")
    cuda.CUresult = CUresult
    cuda.CUdevice_attribute = _members(
        CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR="major",
        CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR="minor",
    )
    cuda.CUstream_flags = _members(CU_STREAM_NON_BLOCKING=1)
    cuda.CUevent_flags = _members(CU_EVENT_DISABLE_TIMING=2)
    cuda.CUstreamCaptureMode = _members(CU_STREAM_CAPTURE_MODE_THREAD_LOCAL="thread local")
    cuda.cuDriverGetVersion = lambda: answer(driver)
    cuda.cuDeviceGetCount = lambda: answer(devices)
    cuda.cuDeviceGet = lambda index: answer(index)
    cuda.cuDeviceTotalMem = lambda device: answer(48 * 2**30)
    cuda.failures = failing
    cuda.pinned = pinned
    cuda.depth = lambda: len(getattr(stacks, "contexts", []))
    return cuda


def _members(**members: Any) -> type:
    return type("members", (), members)


def install_bindings(monkeypatch: Any, cuda: ModuleType) -> None:
    """Let `from cuda.bindings import driver` find `cuda`, on a machine without pycuda."""
    package: Any = ModuleType("cuda.bindings")
    package.driver = cuda
    parent: Any = ModuleType("cuda")
    parent.bindings = package
    monkeypatch.setitem(sys.modules, "cuda", parent)
    monkeypatch.setitem(sys.modules, "cuda.bindings", package)
    monkeypatch.setitem(sys.modules, "cuda.bindings.driver", cuda)
    monkeypatch.setitem(sys.modules, "pycuda", None)
