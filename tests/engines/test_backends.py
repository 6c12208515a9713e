"""Which backend is taken, and why the others were not."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sed_trt.bundle import COMPUTE_DTYPES, Bundle
from sed_trt.engines import backends as module
from sed_trt.engines.backends import (
    BACKENDS,
    CPU_BACKENDS,
    cpu_order,
    missing_package,
    open_engines,
    unavailable_reason,
)
from sed_trt.engines.device.cuda import Gpu
from sed_trt.engines.openvino import engines as openvino_engines
from sed_trt.engines.ort import cuda as onnxruntime_engines
from sed_trt.engines.profiles import Limits
from sed_trt.engines.store import BuiltEngines
from sed_trt.engines.trt import engines as tensorrt_engines
from sed_trt.engines.trt.library import Library
from sed_trt.errors import InputError
from sed_trt.tests.fakes.pycuda import FULL, fake_pycuda, install
from sed_trt.tests.fakes.tensorrt import fake_tensorrt


@pytest.fixture
def bundle(tiny_bundle: Path) -> Bundle:
    """sed-tiny."""
    return Bundle.open(tiny_bundle)


def offer(monkeypatch: pytest.MonkeyPatch, *works: str) -> None:
    """Let the backends work that are named, and all others but ONNX Runtime fail; on an x86-64 processor."""

    class Offered:
        buckets = (8,)
        decodes_at_once = 2
        images_at_once = None

        def __init__(self, backend: str, reason: str, cuda_graphs: bool = False) -> None:
            if backend not in works:
                raise InputError(f"backend {backend}: broken; mend it")
            self.backend = backend
            self.reason = reason
            self.cuda_graphs = cuda_graphs

    monkeypatch.setattr(
        tensorrt_engines,
        "TensorRTEngines",
        lambda bundle, backend, reason, cuda_graphs: Offered(backend, reason, cuda_graphs),
    )
    monkeypatch.setattr(module, "missing_package", lambda backend: None)
    monkeypatch.setattr(module, "cuda_offered", lambda: True)
    monkeypatch.setattr(
        onnxruntime_engines,
        "OnnxRuntimeCudaEngines",
        lambda bundle, threads, reason, cuda_graphs: Offered("onnxruntime-cuda", reason, cuda_graphs),
    )
    monkeypatch.setattr(
        openvino_engines,
        "OpenVinoEngines",
        lambda bundle, threads, reason, at_once: Offered("openvino", reason),
    )
    monkeypatch.setattr("platform.machine", lambda: "x86_64")


@pytest.mark.parametrize(
    ("works", "taken", "reason"),
    [
        (BACKENDS, "tensorrt", "the fastest that works here"),
        (("tensorrt-rtx",), "tensorrt-rtx", "the fastest that works here; tensorrt: broken"),
        (
            ("onnxruntime-cuda",),
            "onnxruntime-cuda",
            "the fastest that works here; tensorrt, tensorrt-rtx: broken",
        ),
        (
            ("openvino",),
            "openvino",
            "the fastest that works here: 1.2 times as fast as ONNX Runtime where both were measured, on an "
            "x86-64 processor with AMX; tensorrt, tensorrt-rtx, onnxruntime-cuda: broken",
        ),
        (
            (),
            "onnxruntime",
            "the fastest that works here; tensorrt, tensorrt-rtx, onnxruntime-cuda, openvino: broken",
        ),
    ],
)
def test_auto_takes_the_fastest_that_works(
    works: tuple[str, ...], taken: str, reason: str, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer(monkeypatch, *works)
    for backend in ("auto", None):
        engines = open_engines(bundle, backend)
        assert (engines.backend, engines.reason) == (taken, reason)


@pytest.mark.parametrize("cuda_graphs", [False, True])
@pytest.mark.parametrize("backend", ["auto", "tensorrt", "tensorrt-rtx", "onnxruntime-cuda"])
def test_gpu_backends_are_told_of_cuda_graphs(
    backend: str, cuda_graphs: bool, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer(monkeypatch, *BACKENDS)
    engines: Any = open_engines(bundle, backend, cuda_graphs=cuda_graphs)
    assert engines.cuda_graphs is cuda_graphs


@pytest.mark.parametrize("backend", BACKENDS[1:])
def test_a_backend_asked_for_is_taken(backend: str, bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    offer(monkeypatch, *BACKENDS)
    engines = open_engines(bundle, backend)
    assert (engines.backend, engines.reason) == (backend, "asked for")


@pytest.mark.parametrize("backend", BACKENDS[1:-1])
def test_a_backend_asked_for_that_fails_is_an_error(
    backend: str, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer(monkeypatch)
    with pytest.raises(InputError, match=f"backend {backend}: broken; mend it"):
        open_engines(bundle, backend)


@pytest.mark.parametrize("backend", ["tensorrt", "tensorrt-rtx"])
def test_tensorrt_without_built_engines(
    backend: str, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sed_trt.engines import store

    library = Library(backend, module, "11.0")
    monkeypatch.setattr(tensorrt_engines, "find_gpu", lambda: Gpu("Fake", (8, 6), "13.0", 1))
    monkeypatch.setattr(tensorrt_engines, "check_driver", lambda backend, gpu: None)
    monkeypatch.setattr(tensorrt_engines, "load_library", lambda backend: library)
    monkeypatch.setattr(store, "installed_version", lambda backend: "11.0")
    monkeypatch.setattr(store, "_check_gpu", lambda backend, gpu: None)
    monkeypatch.setattr(store, "_default_target", lambda backend, gpu: "sm86")
    with pytest.raises(
        InputError, match=f"holds no engines for {backend}.*sed-trt build .* --backend {backend}"
    ):
        open_engines(bundle, backend)


@pytest.mark.parametrize("what", ["context", "stream"])
def test_auto_passes_over_a_gpu_that_cannot_be_opened(
    what: str, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, fake_pycuda(failures={what: FULL}))
    monkeypatch.setattr(module, "missing_package", lambda backend: None)
    monkeypatch.setattr(tensorrt_engines, "load_library", lambda backend: None)
    monkeypatch.setattr(tensorrt_engines, "check_driver", lambda backend, gpu: None)
    monkeypatch.setattr(
        tensorrt_engines,
        "find_built",
        lambda bundle, backend, gpu: BuiltEngines(bundle.path, backend, "1", "sm86", Limits(), {}),
    )
    monkeypatch.setattr(module, "cuda_offered", lambda: False)
    engines = open_engines(bundle)
    assert engines.backend in ("openvino", "onnxruntime")
    assert "tensorrt, tensorrt-rtx: GPU: its memory is too full to open it" in engines.reason


def test_unavailable_reasons(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_gpu() -> Gpu:
        raise InputError("GPU: the NVIDIA driver finds no GPU; check it")

    def missing(backend: str) -> Any:
        raise InputError(f"backend {backend}: the package is not installed; install it")

    monkeypatch.setattr("sed_trt.engines.device.cuda.find_gpu", no_gpu)
    library = Library("tensorrt-rtx", fake_tensorrt("1.7", ["SM86"]), "1.7")
    monkeypatch.setattr("sed_trt.engines.trt.library.load_library", lambda backend: library)
    assert "finds no GPU" in str(unavailable_reason("tensorrt"))
    monkeypatch.setattr("sed_trt.engines.device.cuda.find_gpu", lambda: Gpu("Fake", (8, 6), "99.0", 1))
    assert unavailable_reason("tensorrt-rtx") is None
    monkeypatch.setattr("sed_trt.engines.device.cuda.find_gpu", lambda: Gpu("H200", (9, 0), "99.0", 1))
    assert "knows sm86 only, and this GPU, H200, is sm90" in str(unavailable_reason("tensorrt-rtx"))
    monkeypatch.setattr("sed_trt.engines.trt.library.load_library", missing)
    assert "not installed" in str(unavailable_reason("tensorrt"))
    assert unavailable_reason("auto") is None
    assert unavailable_reason("onnxruntime") is None


def test_auto_works_while_one_cpu_backend_does(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> Any:
        raise InputError("broken; mend it")

    monkeypatch.setattr(module, "cuda_offered", broken)
    monkeypatch.setattr("sed_trt.engines.openvino.library.processor", lambda: "one")
    assert unavailable_reason("onnxruntime") == "broken; mend it"
    assert unavailable_reason("auto") is None
    monkeypatch.setattr("sed_trt.engines.openvino.library.processor", broken)
    assert unavailable_reason("openvino") == "broken; mend it"
    assert unavailable_reason("auto") == "broken; mend it"


@pytest.mark.parametrize("backend", ["tensorrt", "tensorrt-rtx", "onnxruntime-cuda"])
def test_gpu_backends_refuse_8_bit_bundles(tiny_bundle_int8: Path, backend: str) -> None:
    with pytest.raises(InputError, match=f"backend {backend}: .* is an 8-bit bundle, which is for the CPU"):
        open_engines(Bundle.open(tiny_bundle_int8), backend)


def test_8_bit_bundles_run_on_the_cpu(tiny_bundle_int8: Path) -> None:
    assert open_engines(Bundle.open(tiny_bundle_int8)).backend in CPU_BACKENDS


# As where the packages that reach a GPU are not installed.
SEGMENT = """
import sys
sys.modules.update(dict.fromkeys(("pycuda", "cuda", "cuda.bindings")))
import numpy as np
from sed_trt.runtime import Segmenter
segmenter = Segmenter(sys.argv[1], sys.argv[2])
segmenter(np.zeros((20, 30, 3), np.uint8), ["sky", "tree"])
print(segmenter.backend)
print(*(name for name in sys.modules if name.split(".")[0] == "sed_trt"))
"""


@pytest.mark.parametrize("backend", ["auto", "onnxruntime"])
def test_the_cpu_needs_no_gpu_or_build_code(backend: str, tiny_bundle: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SEGMENT, str(tiny_bundle), backend],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    prefix = "sed_trt.engines."
    taken, *names = done.stdout.split()
    modules = {name.removeprefix(prefix) for name in names if name.startswith(prefix)}
    of_backend = {
        "onnxruntime": {"ort.cpu"},
        "openvino": {
            "openvino",
            *(f"openvino.{name}" for name in ("engines", "library", "models", "precision")),
        },
    }
    assert modules == {"backends", "engine", "ort", "ort.session", "packages", "profiles"} | of_backend[taken]


def test_missing_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    installed = {"pycuda", "tensorrt", "openvino"}
    monkeypatch.setattr(module, "is_installed", lambda name: name in installed)
    assert missing_package("tensorrt") is None
    assert missing_package("tensorrt-rtx") == "tensorrt_rtx"
    assert missing_package("openvino") is None
    assert missing_package("onnxruntime") is None
    installed -= {"pycuda"}
    assert missing_package("tensorrt") == "pycuda or cuda.bindings"
    installed |= {"cuda.bindings"}
    assert missing_package("tensorrt") is None


def test_openvino_is_first_where_it_was_measured() -> None:
    for machine in ("x86_64", "AMD64"):
        for precision in COMPUTE_DTYPES:
            order, evidence = cpu_order(precision, machine)
            assert order == ("openvino", "onnxruntime")
            assert set(evidence) == {"openvino"}
    order, evidence = cpu_order("fp32", "arm64")
    assert order == ("onnxruntime", "openvino")
    assert evidence == {"onnxruntime": "OpenVINO was not measured on arm64"}
    # ONNX Runtime has no BF16 on any CPU.
    assert cpu_order("bf16", "arm64")[0] == ("openvino", "onnxruntime")
