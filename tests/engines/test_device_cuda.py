"""The GPU through pycuda, which stands in here: who is found, what is refused, and what is called how."""

import gc
import importlib.metadata
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from sed_trt.engines.device.cuda import CudaDevice, Gpu, check_driver, find_gpu
from sed_trt.engines.device.protocol import DeviceMemoryError
from sed_trt.errors import InputError
from sed_trt.tests.fakes.pycuda import FULL, fake_pycuda, install


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A pycuda with one GPU."""
    module = fake_pycuda()
    install(monkeypatch, module)
    return module


@pytest.mark.parametrize(("version", "shown"), [(13000, "13.0"), (12080, "12.8"), (12040, "12.4")])
def test_gpu_is_described(version: int, shown: str, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, fake_pycuda(driver=version))
    assert find_gpu() == Gpu("Fake 0", (8, 6), shown, 48 * 2**30)


def test_gpu_by_number(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, fake_pycuda(devices=2))
    assert find_gpu(1).name == "Fake 1"
    with pytest.raises(InputError, match="number 2 is not there, expected 0 to 1"):
        find_gpu(2)


def test_pycuda_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pycuda", None)
    monkeypatch.delitem(sys.modules, "pycuda.driver", raising=False)
    with pytest.raises(InputError, match=r"pycuda is not installed.*pip install -e '\.\[tensorrt\]'"):
        find_gpu()


@pytest.mark.parametrize(
    ("reason", "answer"),
    [
        (
            "libcuda.so.1: cannot open shared object file: No such file or directory",
            "there is no NVIDIA driver",
        ),
        ("_driver.so: undefined symbol: cuGreenCtxCreate", "the NVIDIA driver is older than the CUDA"),
        ("numpy.core.multiarray failed to import", "pycuda is broken"),
    ],
)
def test_pycuda_cannot_be_imported(reason: str, answer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Finder:
        """Finds pycuda, whose import fails."""

        @staticmethod
        def find_spec(name: str, path: object = None, target: object = None) -> None:
            if name.startswith("pycuda"):
                raise ImportError(reason)

    for name in ("pycuda", "pycuda.driver"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setattr(sys, "meta_path", [Finder, *sys.meta_path])
    with pytest.raises(InputError) as caught:
        find_gpu()
    assert answer in str(caught.value)
    assert reason in str(caught.value)


@pytest.mark.parametrize(
    ("reason", "answer"),
    [
        ("cuInit failed: no CUDA-capable device is detected", "finds no GPU"),
        ("cuInit failed: system has unsupported display driver / cuda driver combination", "does not start"),
    ],
)
def test_cuda_does_not_start(reason: str, answer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, fake_pycuda(start_error=reason))
    with pytest.raises(InputError, match=answer):
        find_gpu()


def test_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, fake_pycuda(devices=0))
    with pytest.raises(InputError, match="finds no GPU"):
        CudaDevice()


@pytest.mark.parametrize("what", ["context", "stream"])
@pytest.mark.parametrize(
    ("reason", "answer"),
    [(FULL, "its memory is too full .*; end other programs"), ("devices are busy", "it cannot be opened")],
)
def test_gpu_that_cannot_be_opened(
    what: str, reason: str, answer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cuda: Any = fake_pycuda(failures={what: reason})
    install(monkeypatch, cuda)
    with pytest.raises(InputError, match=f"GPU: .*{answer}") as caught:
        CudaDevice()
    assert f"({what} failed: {reason})" in str(caught.value)
    assert cuda.depth() == 0


@pytest.mark.parametrize(
    ("backend", "package", "driver", "fits"),
    [
        ("tensorrt", "tensorrt-cu13", "12.8", False),
        ("tensorrt", "tensorrt-cu13", "13.0", True),
        ("tensorrt", "tensorrt-cu12", "13.0", True),
        ("tensorrt-rtx", "tensorrt-rtx-cu13", "12.9", False),
        ("tensorrt", "tensorrt-rtx-cu13", "12.9", True),
    ],
)
def test_driver_too_old_for_tensorrt(
    backend: str, package: str, driver: str, fits: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def version(name: str) -> str:
        if name != package:
            raise importlib.metadata.PackageNotFoundError(name)
        return "11"

    monkeypatch.setattr(importlib.metadata, "version", version)
    gpu = Gpu("Fake", (8, 6), driver, 1)
    if fits:
        check_driver(backend, gpu)
        return
    with pytest.raises(InputError, match=f"supports CUDA {driver}, {backend}-cu13 needs CUDA 13; update"):
        check_driver(backend, gpu)


def test_the_context_is_current_only_within(cuda: Any) -> None:
    device = CudaDevice()
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
    device = CudaDevice()
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
        cuda.failures["pinned"] = FULL
        with pytest.raises(DeviceMemoryError, match="pinned failed: out of memory"):
            device.allocate_host(100)


def test_copies_go_through_the_stream(cuda: Any) -> None:
    device = CudaDevice()
    assert device.stream == 99
    host = np.zeros(4, np.uint8)
    with device.active():
        device.upload(1, host)
        device.download(host, 2)
        device.copy(3, 4, 5)
    assert [call[0] for call in cuda.calls] == ["memcpy_htod_async", "memcpy_dtoh_async", "memcpy_dtod_async"]
    assert cuda.calls[0][1] == 1
    assert cuda.calls[1][2] == 2
    assert cuda.calls[2][1:] == (3, 4, 5)


def test_events_are_used_again(cuda: Any) -> None:
    device = CudaDevice()
    with device.active():
        for _ in range(5):
            event = device.record()
            event.wait()
            assert event.is_done()
            del event
            gc.collect()
        # One that cannot be recorded is not lost either.
        cuda.failures["event"] = "an illegal memory access was encountered"
        with pytest.raises(cuda.Error, match="illegal"):
            device.record()
        del cuda.failures["event"]
        gc.collect()
        device.record()
    assert cuda.calls == [("event", 2)]
    device.close()
