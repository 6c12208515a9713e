"""8-bit bundles are for the CPU: no GPU backend takes them, and none builds engines of them."""

from pathlib import Path

import pytest

from sed_trt.bundle import Bundle
from sed_trt.engines.backends import open_engines
from sed_trt.engines.build.build import build_engines
from sed_trt.errors import InputError


@pytest.mark.parametrize("backend", ["tensorrt", "tensorrt-rtx", "onnxruntime-cuda"])
def test_gpu_backends_refuse_them(tiny_bundle_int8: Path, backend: str) -> None:
    with pytest.raises(InputError, match=f"backend {backend}: .* is an 8-bit bundle, which is for the CPU"):
        open_engines(Bundle.open(tiny_bundle_int8), backend)


def test_auto_is_the_cpu(tiny_bundle_int8: Path) -> None:
    assert open_engines(Bundle.open(tiny_bundle_int8)).backend == "onnxruntime"


def test_no_gpu_engines_are_built(tiny_bundle_int8: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    with pytest.raises(InputError, match="is an 8-bit bundle"):
        build_engines(Bundle.open(tiny_bundle_int8), "tensorrt-rtx")
    assert not (tiny_bundle_int8 / "engines").exists()
