"""Device memory, copies and errors through a CUDA runtime without a GPU, in a process of their own."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from sed_trt.tests.fakes.cuda_stub import build_stub, compile_library, run_with_stub

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the stub is for Linux")

OPEN = """
import ctypes, json, sys
import numpy as np
from sed_trt.engines.device.protocol import DeviceMemoryError
from sed_trt.engines.device.session import DeviceSession
from sed_trt.engines.ort.cudart import CudaRuntimeDevice
from sed_trt.errors import InputError
library = ctypes.CDLL("libcudart.so.13")
count = lambda name: library.stub_count(name.encode())
library.stub_count.restype = ctypes.c_int64
"""


@pytest.fixture(scope="module")
def stub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the stub; its libraries can be loaded by name."""
    site = build_stub(tmp_path_factory.mktemp("stub"))
    (site / "driver" / "libcudart.so.13").symlink_to(site / "nvidia" / "cu13" / "lib" / "libcudart.so.13")
    return site


def result(stub: Path, code: str, **variables: str) -> Any:
    """What code after `OPEN` prints as JSON."""
    return json.loads(run_with_stub(stub, "-c", OPEN + code, variables=variables))


def test_arrays_there_and_back(stub: Path) -> None:
    found = result(
        stub,
        """
session = DeviceSession(CudaRuntimeDevice(library))
arrays = [np.full((rows, 3), rows, np.int32) for rows in (1, 2)]
stacked = session.stack([session.upload(array) for array in arrays])
with session.work("test") as work:
    download = work.download(stacked)
received = session.received(work, download)
waits, streams, kept = count("waits"), count("streams"), count("device_bytes")
del stacked
session.close()
print(json.dumps([received.tolist(), waits, streams, kept > 0, count("device_bytes")]))
""",
    )
    # One wait, for the result; all copies on the host's side are of pinned memory.
    assert found == [[[1, 1, 1], [2, 2, 2], [2, 2, 2]], 1, 1, True, 0]


def test_memory_that_is_too_small(stub: Path) -> None:
    found = result(
        stub,
        """
device = CudaRuntimeDevice(library)
with device.active():
    pointer = device.allocate(2**20)
    free = device.free_bytes()
    try:
        device.allocate(2**20)
    except DeviceMemoryError as error:
        reason = str(error)
    # ONNX Runtime asks for the last error after each of its kernels, and would take it for its own.
    left = library.cudaPeekAtLastError()
    device.free(pointer)
    again = device.allocate(2**20) > 0
print(json.dumps([free, reason, left, again]))
""",
        CUDA_STUB_BYTES=str(3 * 2**19),
    )
    assert found == [2**19, "out of memory", 0, True]


def test_no_gpu(stub: Path) -> None:
    found = result(
        stub,
        """
try:
    CudaRuntimeDevice(library)
except InputError as error:
    print(json.dumps(str(error)))
""",
        CUDA_STUB_GPUS="0",
    )
    assert found.startswith(
        "backend onnxruntime-cuda: CUDA did not start (cudaSetDevice: no CUDA-capable device"
    )
    assert "nvidia-smi" in found


def test_pinned_memory_is_given_back(stub: Path) -> None:
    found = result(
        stub,
        """
device = CudaRuntimeDevice(library)
with device.active():
    part = device.allocate_host(5000)[:10]
before = count("pinned_bytes")
part[:] = 1
del part
print(json.dumps([before >= 5000, count("pinned_bytes")]))
""",
    )
    assert found == [True, 0]


LOAD = """
import json
from types import SimpleNamespace
from sed_trt.engines.ort import cuda_libraries
from sed_trt.errors import InputError
cuda_libraries.library = lambda: SimpleNamespace(cuda_version=VERSION)
try:
    cuda_libraries.load_cuda_libraries()
    message = "loaded"
except InputError as error:
    message = str(error)
maps = open("/proc/self/maps").read().split()
print(json.dumps([message, sorted({path for path in maps if ".so" in path})]))
"""
# The libraries of CUDA 12 with the folders of their wheels.
CUDA_12 = {
    "libcudart.so.12": "cuda_runtime",
    "libcublasLt.so.12": "cublas",
    "libcublas.so.12": "cublas",
    "libcurand.so.10": "curand",
    "libcudnn.so.9": "cudnn",
    "libcufft.so.11": "cufft",
}


def load(site: Path, version: str) -> tuple[str, set[str]]:
    """What comes of loading the libraries, and the files that are then in the process."""
    message, files = json.loads(run_with_stub(site, "-c", f"VERSION = {version!r}{LOAD}"))
    return message, set(files)


def test_libraries_of_wheels_that_share_a_folder(stub: Path) -> None:
    message, files = load(stub, "13.0")
    assert message == "loaded"
    for name in (
        "libcudart.so.13",
        "libcublasLt.so.13",
        "libcublas.so.13",
        "libcurand.so.10",
        "libcufft.so.12",
    ):
        assert str(stub / "nvidia" / "cu13" / "lib" / name) in files
    assert str(stub / "nvidia" / "cudnn" / "lib" / "libcudnn.so.9") in files


def test_libraries_of_wheels_with_folders_of_their_own(tmp_path: Path) -> None:
    for name, wheel in CUDA_12.items():
        compile_library(tmp_path / "nvidia" / wheel / "lib" / name, "int nothing(void) { return 0; }")
    # Of another version, and with a library of the same name.
    compile_library(
        tmp_path / "nvidia" / "cu13" / "lib" / "libcurand.so.10", "int nothing(void) { return 0; }"
    )
    message, files = load(tmp_path, "12.8")
    assert message == "loaded"
    assert {str(tmp_path / "nvidia" / wheel / "lib" / name) for name, wheel in CUDA_12.items()} <= files
    assert not any("cu13" in file for file in files)


def test_libraries_of_the_system(tmp_path: Path) -> None:
    """There is no wheel of a CUDA 12 here."""
    for name in CUDA_12:
        compile_library(tmp_path / "driver" / name, "int nothing(void) { return 0; }")
    message, files = load(tmp_path, "12.8")
    assert message == "loaded"
    assert str(tmp_path / "driver" / "libcublas.so.12") in files


def test_missing_libraries_are_named_in_one_line(tmp_path: Path) -> None:
    for name in CUDA_12:
        if "cublas" not in name:
            compile_library(tmp_path / "driver" / name, "int nothing(void) { return 0; }")
    message, _ = load(tmp_path, "12.8")
    assert message.startswith(
        "backend onnxruntime-cuda: libraries of CUDA 12 are missing or broken (libcublasLt"
    )
    assert "libcublas.so.12" in message
    assert "libcudart" not in message
    assert "pip install -e '.[gpu]'" in message
    assert "\n" not in message


def test_an_onnxruntime_without_cuda(tmp_path: Path) -> None:
    message, _ = load(tmp_path, "")
    assert "this ONNX Runtime was built without CUDA; install onnxruntime-gpu" in message
