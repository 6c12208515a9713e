"""The GPU through pycuda and cuda-bindings, which stand in here: which is taken, refused and called how."""

import gc
import importlib.metadata
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from sed_trt.engines.device.cuda import check_driver, find_gpu, open_device
from sed_trt.engines.device.gpu import Gpu
from sed_trt.engines.device.protocol import CaptureError, DeviceMemoryError
from sed_trt.engines.packages import device_package
from sed_trt.errors import InputError
from sed_trt.tests.fakes.cuda_bindings import fake_bindings, install_bindings
from sed_trt.tests.fakes.pycuda import FULL, fake_pycuda, install


@dataclass(frozen=True)
class Package:
    """A package that reaches a GPU, and what stands in for it."""

    name: str
    module: str
    device: str
    fake: Callable[..., ModuleType]
    install: Callable[[Any, ModuleType], None]


PYCUDA = Package("pycuda", "pycuda", "PycudaDevice", fake_pycuda, install)
BINDINGS = Package("cuda-bindings", "cuda.bindings", "BindingsDevice", fake_bindings, install_bindings)


@pytest.fixture(params=[PYCUDA, BINDINGS], ids=lambda package: package.name)
def package(request: pytest.FixtureRequest) -> Package:
    """Each package in turn."""
    chosen: Package = request.param
    return chosen


@pytest.fixture
def cuda(package: Package, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The package, on a machine with one GPU and without the other package."""
    module = package.fake()
    package.install(monkeypatch, module)
    return module


def use(package: Package, monkeypatch: pytest.MonkeyPatch, **arguments: Any) -> Any:
    """The fake module of a package made with `arguments`, installed."""
    module = package.fake(**arguments)
    package.install(monkeypatch, module)
    return module


@pytest.mark.parametrize(("version", "shown"), [(13000, "13.0"), (12080, "12.8"), (12040, "12.4")])
def test_gpu_is_described(
    package: Package, version: int, shown: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(package, monkeypatch, driver=version)
    assert find_gpu() == Gpu("Fake 0", (8, 6), shown, 48 * 2**30)


def test_gpu_by_number(package: Package, monkeypatch: pytest.MonkeyPatch) -> None:
    use(package, monkeypatch, devices=2)
    assert find_gpu(1).name == "Fake 1"
    with pytest.raises(InputError, match="number 2 is not there, expected 0 to 1"):
        find_gpu(2)


def test_pycuda_is_taken_first(monkeypatch: pytest.MonkeyPatch) -> None:
    install_bindings(monkeypatch, fake_bindings(driver=12080))
    bindings = sys.modules["cuda.bindings"]
    assert (device_package(), type(open_device()).__name__) == ("cuda-bindings", "BindingsDevice")
    install(monkeypatch, fake_pycuda(driver=13000))
    assert (device_package(), type(open_device()).__name__) == ("pycuda", "PycudaDevice")
    monkeypatch.setitem(sys.modules, "cuda.bindings", bindings)
    assert (device_package(), type(open_device()).__name__) == ("pycuda", "PycudaDevice")
    assert find_gpu().driver == "13.0"
    # Only cuda-bindings has CUDA graphs.
    assert type(open_device(captures=True)).__name__ == "BindingsDevice"


def test_pycuda_alone_has_no_graphs(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, fake_pycuda())
    with pytest.raises(
        InputError, match="cuda_graphs: pycuda has no CUDA graphs; pip install cuda-bindings, or"
    ):
        open_device(captures=True)
    with pytest.raises(CaptureError, match="pycuda has no CUDA graphs"):
        open_device().capture(lambda: None)


def test_neither_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("pycuda", "cuda", "cuda.bindings"):
        monkeypatch.setitem(sys.modules, module, None)
    message = r"neither pycuda nor cuda-bindings is installed.*pip install cuda-bindings.*'\.\[rtx\]'"
    for action in (find_gpu, open_device):
        with pytest.raises(InputError, match=message):
            action()
    assert device_package() is None


@pytest.mark.parametrize(
    ("reason", "answer"),
    [
        (
            "libcuda.so.1: cannot open shared object file: No such file or directory",
            "there is no NVIDIA driver",
        ),
        ("_driver.so: undefined symbol: cuGreenCtxCreate", "the NVIDIA driver is older than the CUDA"),
        ("numpy.core.multiarray failed to import", "{} is broken"),
    ],
)
def test_the_package_cannot_be_imported(
    package: Package, reason: str, answer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Finder:
        """Finds the package's driver module, whose import fails."""

        @staticmethod
        def find_spec(name: str, path: object = None, target: object = None) -> None:
            if name == f"{package.module}.driver":
                raise ImportError(reason)

    use(package, monkeypatch)
    parent: Any = ModuleType(package.module)
    parent.__path__ = []
    monkeypatch.setitem(sys.modules, package.module, parent)
    monkeypatch.delitem(sys.modules, f"{package.module}.driver")
    monkeypatch.setattr(sys, "meta_path", [Finder, *sys.meta_path])
    with pytest.raises(InputError) as caught:
        find_gpu()
    assert answer.format(package.name) in str(caught.value)
    assert reason in str(caught.value)


def test_bindings_miss_the_driver_when_they_are_first_called(monkeypatch: pytest.MonkeyPatch) -> None:
    install_bindings(monkeypatch, fake_bindings(start_error="Failed to dlopen libcuda.so.1"))
    with pytest.raises(InputError, match=r"no NVIDIA driver \(Failed to dlopen libcuda.so.1\); install it"):
        find_gpu()


@pytest.mark.parametrize(
    ("reason", "answer"),
    [
        ("cuInit failed: no CUDA-capable device is detected", "finds no GPU"),
        ("cuInit failed: system has unsupported display driver / cuda driver combination", "does not start"),
    ],
)
def test_cuda_does_not_start(
    package: Package, reason: str, answer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(package, monkeypatch, start_error=reason)
    with pytest.raises(InputError, match=answer):
        find_gpu()


def test_no_gpu(package: Package, monkeypatch: pytest.MonkeyPatch) -> None:
    use(package, monkeypatch, devices=0)
    for action in (find_gpu, open_device):
        with pytest.raises(InputError, match="finds no GPU"):
            action()


@pytest.mark.parametrize("what", ["context", "stream"])
@pytest.mark.parametrize(
    ("reason", "answer"),
    [(FULL, "its memory is too full .*; end other programs"), ("devices are busy", "it cannot be opened")],
)
def test_gpu_that_cannot_be_opened(
    package: Package, what: str, reason: str, answer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cuda = use(package, monkeypatch, failures={what: reason})
    with pytest.raises(InputError, match=f"GPU: .*{answer}") as caught:
        open_device()
    assert f"{what} failed: {reason})" in str(caught.value)
    assert cuda.depth() == 0


@pytest.mark.parametrize(
    ("backend", "package_name", "driver", "fits"),
    [
        ("tensorrt", "tensorrt-cu13", "12.8", False),
        ("tensorrt", "tensorrt-cu13", "13.0", True),
        ("tensorrt", "tensorrt-cu12", "13.0", True),
        ("tensorrt-rtx", "tensorrt-rtx-cu13", "12.9", False),
        ("tensorrt", "tensorrt-rtx-cu13", "12.9", True),
    ],
)
def test_driver_too_old_for_tensorrt(
    backend: str, package_name: str, driver: str, fits: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def version(name: str) -> str:
        if name != package_name:
            raise importlib.metadata.PackageNotFoundError(name)
        return "11"

    monkeypatch.setattr(importlib.metadata, "version", version)
    gpu = Gpu("Fake", (8, 6), driver, 1)
    if fits:
        check_driver(backend, gpu)
        return
    with pytest.raises(InputError, match=f"supports CUDA {driver}, {backend}-cu13 needs CUDA 13; update"):
        check_driver(backend, gpu)


def test_the_stream_waits_for_no_other(cuda: Any) -> None:
    assert open_device().stream == 99
    assert cuda.calls == [("stream", 1)]


def test_the_context_is_current_only_within(cuda: Any) -> None:
    device = open_device()
    assert cuda.depth() == 0
    with pytest.raises(ValueError, match="anything"), device.active():
        assert cuda.depth() == 1
        raise ValueError("anything")
    assert cuda.depth() == 0

    def depth_in_thread(_number: int) -> tuple[int, int]:
        with device.active():
            within = cuda.depth()
        return within, cuda.depth()

    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(depth_in_thread, range(20))) == {(1, 0)}


def test_memory(cuda: Any) -> None:
    device = open_device()
    cuda.calls.clear()
    with device.active():
        pointer = device.allocate(10)
        assert pointer == 40960
        device.free(pointer)
        assert cuda.calls == [("free", 10)]
        assert device.free_bytes() == 600
        with pytest.raises(DeviceMemoryError, match="out of memory"):
            device.allocate(2000)
        host = device.allocate_host(100)
        assert (host.dtype, host.shape) == (np.uint8, (100,))
        host[:] = 7
        cuda.failures["pinned"] = FULL
        with pytest.raises(DeviceMemoryError, match="pinned failed: out of memory"):
            device.allocate_host(100)


def test_pinned_memory_of_bindings_is_freed_where_the_context_is_current(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cuda = use(BINDINGS, monkeypatch)
    device = open_device()
    with device.active():
        first, second = device.allocate_host(100), device.allocate_host(200)
    part = first[10:20].view(np.int8)
    del first
    gc.collect()
    assert len(cuda.pinned) == 2
    del part, second
    gc.collect()
    with device.active():
        third = device.allocate_host(300)
        assert len(cuda.pinned) == 1
    del third
    gc.collect()
    device.close()
    assert not cuda.pinned


def test_copies_go_through_the_stream(cuda: Any) -> None:
    device = open_device()
    cuda.calls.clear()
    with device.active():
        host = device.allocate_host(4)
        device.upload(1, host)
        device.download(host, 2)
        device.copy(3, 4, 5)
    assert [call[0] for call in cuda.calls] == ["memcpy_htod_async", "memcpy_dtoh_async", "memcpy_dtod_async"]
    assert cuda.calls[0][1] == 1
    assert cuda.calls[1][2] == 2
    assert cuda.calls[2][1:] == (3, 4, 5)


def test_bindings_copy_addresses_and_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = use(BINDINGS, monkeypatch)
    device = open_device()
    cuda.calls.clear()
    with device.active():
        host = device.allocate_host(12)[4:]
        device.upload(1, host)
        device.download(host, 2)
    assert cuda.calls == [
        ("memcpy_htod_async", 1, host.ctypes.data, 8),
        ("memcpy_dtoh_async", host.ctypes.data, 2, 8),
    ]


def test_events_are_used_again(cuda: Any) -> None:
    device = open_device()
    cuda.calls.clear()
    with device.active():
        for _ in range(5):
            event = device.record()
            event.wait()
            assert event.is_done()
            del event
            gc.collect()
        # One that cannot be recorded is not lost either.
        cuda.failures["event"] = "an illegal memory access was encountered"
        with pytest.raises(Exception, match="illegal memory access"):
            device.record()
        del cuda.failures["event"]
        gc.collect()
        device.record()
    assert cuda.calls == [("event", 2)]
    device.close()


def test_an_event_is_not_done_before_its_work(cuda: Any) -> None:
    device = open_device()
    with device.active():
        event = device.record()
        cuda.done = False
        assert not event.is_done()
        cuda.done = True
        assert event.is_done()
        cuda.failures["query"] = "an illegal memory access was encountered"
        with pytest.raises(Exception, match="illegal memory access"):
            event.is_done()


def test_work_is_captured_and_launched(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = use(BINDINGS, monkeypatch)
    device = open_device()
    cuda.calls.clear()
    with device.active():
        graph = device.capture(lambda: device.copy(3, 4, 5))
        begin, copied, end = ("begin", "thread local"), ("memcpy_dtod_async", 3, 4, 5), ("end",)
        # What was captured is destroyed once it is instantiated.
        assert cuda.calls == [begin, copied, end, ("cuGraphDestroy", 1)]
        cuda.calls.clear()
        graph.launch()
        graph.launch()
    assert cuda.calls == [("cuGraphLaunch", 2)] * 2
    cuda.calls.clear()
    device.close()
    assert cuda.calls == [("cuGraphExecDestroy", 2), ("cuStreamDestroy", 99)]


def test_a_capture_that_fails_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = use(BINDINGS, monkeypatch)
    device = open_device()

    def fail() -> None:
        raise ValueError("the first")

    with device.active():
        cuda.calls.clear()
        with pytest.raises(ValueError, match="the first"):
            device.capture(fail)
        assert cuda.calls == [("begin", "thread local"), ("end",), ("cuGraphDestroy", 1)]
        cuda.failures["end"] = "operation failed due to a previous error during capture"
        with pytest.raises(CaptureError, match="previous error during capture"):
            device.capture(lambda: None)
        # What went wrong first is what counts.
        with pytest.raises(ValueError, match="the first"):
            device.capture(fail)
