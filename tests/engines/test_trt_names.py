"""Every name of TensorRT that the runtime uses exists in TensorRT 11 and in TensorRT-RTX; needs no GPU."""

import ast
import importlib
from pathlib import Path
from types import ModuleType

import pytest

from sed_trt.engines.trt import contexts as trt_contexts
from sed_trt.engines.trt import execution as trt_execution
from sed_trt.engines.trt import layers as trt_layers

# By class, what the runtime uses of TensorRT and TensorRT-RTX alike.
RUNTIME_NAMES = {
    "ILogger": ("Severity", "log"),
    "Runtime": ("deserialize_cuda_engine", "engine_host_code_allowed"),
    "ICudaEngine": ("create_execution_context",),
    "ExecutionContextAllocationStrategy": ("USER_MANAGED",),
    "IExecutionContext": (
        "execute_async_v3",
        "get_tensor_shape",
        "infer_shapes",
        "set_device_memory",
        "set_input_shape",
        "set_optimization_profile_async",
        "set_tensor_address",
        "update_device_memory_size_for_shapes",
    ),
}
# The same of TensorRT-RTX alone, which compiles kernels on the machine that runs them.
RTX_NAMES = {
    "Runtime": ("get_engine_validity",),
    "EngineInvalidityDiagnostics": (
        "INSUFFICIENT_GPU_MEMORY",
        "OLD_CUDA_DRIVER",
        "OLD_CUDA_RUNTIME",
        "UNSUPPORTED_CC",
    ),
    "CudaGraphStrategy": ("WHOLE_GRAPH_CAPTURE",),
    "ICudaEngine": ("create_runtime_config",),
    "IRuntimeConfig": (
        "create_runtime_cache",
        "cuda_graph_strategy",
        "dynamic_shapes_kernel_specialization_strategy",
        "set_execution_context_allocation_strategy",
        "set_runtime_cache",
    ),
    "IRuntimeCache": ("deserialize", "serialize"),
    "DynamicShapesKernelSpecializationStrategy": ("EAGER", "NONE"),
}
# By class, the names of both that `layers` uses as well.
INSPECTOR_NAMES = {
    "ICudaEngine": ("create_engine_inspector",),
    "EngineInspector": ("execution_context", "get_engine_information"),
    "LayerInformationFormat": ("JSON",),
}
# Variables of these files that hold TensorRT's objects.
HOLDERS = {"context", "engine", "config", "specialization", "_engine", "_runtime", "_cache", "_module"}
HOLDERS |= {"_context", "inspector", "module", "CudaGraphStrategy", "LayerInformationFormat"}


def load(name: str) -> ModuleType:
    # The lean runtime has the runtime's names of TensorRT itself, and is a hundredth of its size.
    return pytest.importorskip(name, reason=f"{name} is not installed; pip install -e '.[dev]'")


@pytest.mark.parametrize("module", ["tensorrt_lean", "tensorrt_rtx"])
@pytest.mark.parametrize(("kind", "names"), RUNTIME_NAMES.items())
def test_names_of_both(module: str, kind: str, names: tuple[str, ...]) -> None:
    found = getattr(load(module), kind)
    assert [name for name in names if not hasattr(found, name)] == []


# The lean runtime has no inspector.
@pytest.mark.parametrize(("kind", "names"), [*RTX_NAMES.items(), *INSPECTOR_NAMES.items()])
def test_names_of_rtx(kind: str, names: tuple[str, ...]) -> None:
    found = getattr(load("tensorrt_rtx"), kind)
    assert [name for name in names if not hasattr(found, name)] == []


def test_severities() -> None:
    for module in ("tensorrt_lean", "tensorrt_rtx"):
        severity = load(module).ILogger.Severity
        assert {"INTERNAL_ERROR", "ERROR"} <= set(severity.__members__)


@pytest.mark.parametrize("module", [trt_contexts, trt_execution, trt_layers])
def test_the_code_uses_no_other_names(module: ModuleType) -> None:
    tables = (RUNTIME_NAMES, RTX_NAMES, INSPECTOR_NAMES)
    listed = {name for table in tables for kind in table for name in (kind, *table[kind])}
    used = set()
    for node in ast.walk(ast.parse(Path(str(module.__file__)).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Attribute):
            holder = (
                node.value.attr if isinstance(node.value, ast.Attribute) else getattr(node.value, "id", "")
            )
            if holder in HOLDERS:
                used.add(node.attr)
    assert used
    assert used <= listed


def test_an_engine_built_here_is_read_by_the_runtime_names() -> None:
    """Without a GPU TensorRT-RTX refuses every plan, and says why in the log that errors are made of."""
    rtx = load("tensorrt_rtx")
    library = importlib.import_module("sed_trt.engines.trt.library").load_library("tensorrt-rtx")
    log = library.logger()
    runtime = rtx.Runtime(log)
    assert runtime.deserialize_cuda_engine(b"no plan") is None
    assert log.errors
    validity, diagnostics = runtime.get_engine_validity(b"no plan")
    assert validity == rtx.EngineValidity.INVALID
    assert int(diagnostics) & sum(map(int, rtx.EngineInvalidityDiagnostics.__members__.values()))
