"""The precision of the layers in a built engine: what the side-car says, and what the engine itself says."""

import json
import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

from ...bundle import Manifest
from ...errors import InputError
from ..device.cuda import CudaDevice, Gpu, check_driver
from ..store import BuiltEngines, BuiltStage, build_command, check_runs_here, read_plan
from .contexts import CACHE_FILE, TensorRTContexts
from .library import TENSORRT_BACKENDS, Library, load_library

FLOAT = "FLOAT"
# These stages are in float32 in every bundle.
_FLOAT_STAGES = ("text", "scout", "label")
# By class, what is used of TensorRT and TensorRT-RTX beside what running them takes.
INSPECTOR_NAMES: Mapping[str, tuple[str, ...]] = {
    "ICudaEngine": ("create_engine_inspector",),
    "EngineInspector": ("execution_context", "get_engine_information"),
    "LayerInformationFormat": ("JSON",),
}
_NAMES = (
    ("BF16", r"BF16|BFLOAT16"),
    ("HALF", r"FP16|HALF|FLOAT16"),
    (FLOAT, r"FP32|FLOAT"),
    ("INT", r"INT\d+|BOOL"),
)


def is_float_by_mistake(stage: BuiltStage, manifest: Manifest) -> bool:
    """Whether most convolution weights of a stage are float32 though the bundle is in half precision.

    A few are so by design, where float16 would lose too much.
    """
    weights = stage.network.convolution_weights
    if manifest.precision not in ("fp16", "bf16") or stage.name in _FLOAT_STAGES:
        return False
    return 2 * weights.get(FLOAT, 0) > sum(weights.values())


def engine_layers(built: BuiltEngines, gpu: Gpu) -> dict[str, dict[str, int]]:
    """By stage, data type to the number of layers with an output of it, from TensorRT's engine inspector.

    Raises:
        InputError: these are no engines of TensorRT, are not for this version or GPU or its driver, a plan is
            altered, or the library cannot load it.
    """
    if built.backend not in TENSORRT_BACKENDS:
        raise InputError(
            f"{built.folder}: engines of {built.backend} cannot be inspected, only those of "
            f"{' and '.join(TENSORRT_BACKENDS)}"
        )
    check_runs_here(built, gpu)
    check_driver(built.backend, gpu)
    library = load_library(built.backend)
    cache = built.folder / CACHE_FILE
    device = CudaDevice()
    try:
        with device.active():
            contexts = TensorRTContexts(library, cache, bool(built.options.version_compatible))
            return {
                name: count_layers(_information(built, name, contexts, library, device.stream))
                for name in built.stages
            }
    finally:
        device.close()


def _information(
    built: BuiltEngines, stage: str, contexts: TensorRTContexts, library: Library, stream: int
) -> str:
    command = build_command(
        built.folder.parent.parent, built.backend, built.target, built.limits, built.options
    )
    record = built.stages[stage]
    engine = contexts.load(read_plan(built, stage), record.file, command)
    context = contexts.context(engine, stage, 0, stream)
    for profile in record.profiles[:1]:
        for name, (_, usual, _) in profile.shapes.items():
            context.set_input_shape(name, usual)
    inspector = engine.create_engine_inspector()
    # Formats of dynamic shapes are known in a context only.
    inspector.execution_context = context
    return str(inspector.get_engine_information(library.module.LayerInformationFormat.JSON))


def count_layers(information: str) -> dict[str, int]:
    """Data type of the first output to the number of layers, from the inspector's JSON."""
    layers = json.loads(information).get("Layers", [])
    return dict(Counter(_output_type(layer) for layer in layers).most_common())


def _output_type(layer: Any) -> str:
    outputs = layer.get("Outputs", []) if isinstance(layer, Mapping) else []
    if not outputs:
        return "unknown"
    # TensorRT 11 split what 10 gives in one field.
    text = str(outputs[0].get("DataType") or outputs[0].get("Format/Datatype", "")).upper()
    return next((name for name, pattern in _NAMES if re.search(pattern, text)), "unknown")
