"""The names and values of the real cuda-bindings, which needs no driver to be imported."""

import ast
import inspect
import sys
from typing import Any

import pytest

from sed_trt.engines.device import bindings_device
from sed_trt.engines.device.cuda import find_gpu
from sed_trt.errors import InputError
from sed_trt.tests.fakes.cuda_bindings import fake_bindings


def names_used() -> set[str]:
    """What `bindings_device` uses of the module `cuda`, enumerations with their members."""
    names = set()
    for node in ast.walk(ast.parse(inspect.getsource(bindings_device))):
        if isinstance(node, ast.Attribute):
            path = ast.unparse(node).removeprefix("self._cuda.").removeprefix("cuda.")
            if path.startswith("CU") or path.startswith("cu"):
                names.add(path)
    attributes = "CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_"
    return names | {f"CUdevice_attribute.{attributes}{part}" for part in ("MAJOR", "MINOR")}


def test_the_real_bindings_have_every_name() -> None:
    real = pytest.importorskip("cuda.bindings.driver", reason="cuda-bindings is not installed")
    names = names_used()
    assert {"cuMemAlloc", "CUresult.CUDA_SUCCESS", "cuGraphLaunch"} <= names
    for name in names:
        holder: Any = real
        for part in name.split("."):
            assert hasattr(holder, part), name
            holder = getattr(holder, part)
    fake = fake_bindings()
    for name, thing in vars(fake).items():
        if name.startswith("cu") and callable(thing):
            assert callable(getattr(real, name)), name


def test_values_of_the_real_bindings() -> None:
    real = pytest.importorskip("cuda.bindings.driver", reason="cuda-bindings is not installed")
    assert int(real.CUstream_flags.CU_STREAM_NON_BLOCKING) == 1
    assert int(real.CUstream(1234)) == 1234
    assert int(real.CUdeviceptr(1234)) == 1234
    # The numbers that this product writes for handles and addresses are taken as such.
    assert real.CUresult(2) == real.CUresult.CUDA_ERROR_OUT_OF_MEMORY
    assert real.CUresult.CUDA_ERROR_NOT_READY.name == "CUDA_ERROR_NOT_READY"


def test_the_real_bindings_without_a_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    real = pytest.importorskip("cuda.bindings.driver", reason="cuda-bindings is not installed")
    try:
        real.cuInit(0)
    except RuntimeError:
        monkeypatch.setitem(sys.modules, "pycuda", None)
        with pytest.raises(InputError, match="GPU: there is no NVIDIA driver"):
            find_gpu()
    else:
        pytest.skip("there is an NVIDIA driver here")
