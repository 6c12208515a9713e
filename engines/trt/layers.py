"""The precision of the layers in built engines, as TensorRT's engine inspector reports it."""

import json
import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

from ...errors import InputError
from ..device.cuda import check_driver, open_device
from ..device.gpu import Gpu
from ..store import BuiltEngines, check_runs_here, read_plan
from ..targets import TENSORRT_BACKENDS
from .contexts import CACHE_FILE, TensorRTContexts
from .library import Library, load_library

# Data type to a pattern of what the inspectors of TensorRT 10 and 11 call it; the first match counts.
_TYPES = (
    ("BF16", r"BF16|BFLOAT16"),
    ("HALF", r"FP16|HALF|FLOAT16"),
    ("FLOAT", r"FP32|FLOAT"),
    ("INT", r"INT\d+|BOOL"),
)


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
    device = open_device()
    try:
        with device.active():
            contexts = TensorRTContexts(library, cache, bool(built.options.version_compatible))
            try:
                return {
                    name: count_layers(_information(built, name, contexts, library, device.stream))
                    for name in built.stages
                }
            finally:
                contexts.close()
    finally:
        device.close()


def _information(
    built: BuiltEngines, stage: str, contexts: TensorRTContexts, library: Library, stream: int
) -> str:
    engine = contexts.load(read_plan(built, stage), built.plan_file(stage), built.command)
    context = contexts.context(engine, stage, 0, stream)
    for profile in built.stages[stage].profiles[:1]:
        for name, (_, opt, _) in profile.items():
            context.set_input_shape(name, opt)
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
    return next((name for name, pattern in _TYPES if re.search(pattern, text)), "unknown")
