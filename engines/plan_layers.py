"""The precision of the layers in a built engine: what the side-car says, and what the engine itself says."""

import json
import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

from ..errors import InputError
from .bundle import Manifest
from .gpu import find_gpu
from .plan_record import BuiltEngines, BuiltStage
from .plans import read_plan
from .trt_library import TENSORRT_BACKENDS, load_library

FLOAT = "FLOAT"
# These stages are in float32 in every bundle.
_FLOAT_STAGES = ("text", "label")
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
    if manifest.precision == "fp32" or stage.name in _FLOAT_STAGES:
        return False
    return 2 * weights.get(FLOAT, 0) > sum(weights.values())


def engine_layers(built: BuiltEngines, stage: str) -> dict[str, int]:
    """Data type to the number of layers with an output of it, from TensorRT's engine inspector.

    Raises:
        InputError: there is no GPU, the plan is altered, or the library cannot load it here.
    """
    if built.backend not in TENSORRT_BACKENDS:
        raise InputError(
            f"{built.folder}: engines of {built.backend} cannot be inspected; leave out --engine"
        )
    library = load_library(built.backend)
    find_gpu()
    plan = read_plan(built, stage)
    logger = library.logger()
    runtime = library.module.Runtime(logger)
    # Version-compatible plans carry code of the version that built them; it was checked by its hash.
    runtime.engine_host_code_allowed = bool(built.options.version_compatible)
    engine = runtime.deserialize_cuda_engine(plan)
    context = engine.create_execution_context() if engine is not None else None
    if context is None:
        reason = "; ".join(logger.errors) or "it gives no reason"
        raise InputError(
            f"{built.stages[stage].file}: {built.backend} {library.version} cannot load it here ({reason}); "
            "build it for this GPU with `sed-trt build`"
        )
    for profile in built.stages[stage].profiles[:1]:
        for name, (_, usual, _) in profile.shapes.items():
            context.set_input_shape(name, usual)
    inspector = engine.create_engine_inspector()
    # Formats of dynamic shapes are known in a context only.
    inspector.execution_context = context
    return count_layers(inspector.get_engine_information(library.module.LayerInformationFormat.JSON))


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
