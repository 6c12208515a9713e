"""The models of the stages: read from the graphs, checked against the manifest, and compiled."""

from pathlib import Path
from typing import Any

from ...bundle import Bundle, Stage, TensorSpec
from ...errors import InputError
from ...stages import AXES, BY_NAME, Counts
from ..engine import check_signatures, signature
from .library import DEVICE, core, error_line, version
from .precision import Arithmetic, prepared_model, stage_hint

# OpenVINO's names of the dtypes.
_DTYPES = {
    "u8": "uint8",
    "i32": "int32",
    "i64": "int64",
    "f16": "float16",
    "bf16": "bfloat16",
    "f32": "float32",
}


def compile_stage(
    bundle: Bundle,
    stage: str,
    chosen: Arithmetic,
    threads: int | None,
    counters: bool = False,
    runs_at_once: int = 1,
) -> Any:
    """The `openvino.CompiledModel` of a stage; for one image at a time where it takes a batch of images.

    Args:
        bundle: whose stage it is.
        stage: its name.
        chosen: what is computed.
        threads: of the CPU for one run; None is an equal share of the physical cores.
        counters: whether its requests tell what each operator took.
        runs_at_once: runs that are computed side by side.

    Raises:
        InputError: the graph is missing or altered, OpenVINO cannot load it, or its inputs and outputs are
            not those of the manifest.
    """
    description = bundle.manifest.stages[stage]
    file = bundle.verified(description.file)
    try:
        model = core().read_model(file)
        check_model(model, description, file)
        model = prepared_model(model, stage, chosen)
        if takes_one_image(stage):
            # OpenVINO merges more operators where it knows the shapes, and there is one shape only.
            model.reshape({tensor.name: _one_image(tensor) for tensor in description.inputs})
        options = properties(stage_hint(stage, chosen), threads, runs_at_once) | {"PERF_COUNT": counters}
        return core().compile_model(model, DEVICE, options)
    except RuntimeError as error:
        raise InputError(
            f"{file}: OpenVINO {version()} cannot load it ({error_line(error)}); update openvino, export the "
            "checkpoint again, or use the backend onnxruntime"
        ) from error


def properties(hint: str, threads: int | None, runs_at_once: int = 1) -> dict[str, Any]:
    """OpenVINO's properties of a compiled model that computes in `hint`.

    `threads` are those of one run, None for an equal share of the physical cores.
    """
    chosen: dict[str, Any] = {
        "INFERENCE_PRECISION_HINT": hint,
        # The other mode may lower the precision further.
        "EXECUTION_MODE_HINT": "ACCURACY",
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0",
        "PERFORMANCE_HINT": "LATENCY",
    }
    if threads is not None:
        # OpenVINO would pin the threads to the first cores, and so those of another process with few threads.
        chosen |= {"INFERENCE_NUM_THREADS": threads * runs_at_once, "ENABLE_CPU_PINNING": False}
    if runs_at_once > 1:
        # The runs of two stages would be pinned to the same cores, while others are idle.
        chosen |= {"NUM_STREAMS": str(runs_at_once), "ENABLE_CPU_PINNING": False}
    return chosen


def takes_one_image(stage: str) -> bool:
    """Whether a stage is compiled for one image, and a batch runs as one request for each image."""
    axes = {axis for tensor in BY_NAME[stage].inputs for axis in tensor.dynamic_axes.values()}
    return {AXES[axis] for axis in axes} == {Counts.IMAGES}


def check_model(model: Any, stage: Stage, file: Path) -> None:
    """Compare the inputs and outputs of a model with the manifest's, apart from the names of dynamic axes.

    Args:
        model: `openvino.Model`, as it was read.
        stage: as the manifest describes it.
        file: of the graph; named in errors.

    Raises:
        InputError: they differ.
    """
    for side, ports, tensors in (
        ("inputs", model.inputs, stage.inputs),
        ("outputs", model.outputs, stage.outputs),
    ):
        names = [tensor.name for tensor in tensors]
        actual = [_port_signature(port, names) for port in ports]
        stated = [signature(tensor.name, tensor.dtype, tensor.shape) for tensor in tensors]
        check_signatures(file, side, actual, stated)


def _port_signature(port: Any, names: list[str]) -> str:
    """Signature of an input or output of a model; it may have more names than the one in `names`."""
    name = next((name for name in names if name in port.get_names()), port.any_name)
    kind = port.get_element_type().get_type_name()
    sizes = [None if size.is_dynamic else size.get_length() for size in port.get_partial_shape()]
    return signature(name, _DTYPES.get(kind, kind), sizes)


def _one_image(tensor: TensorSpec) -> list[int]:
    return [size if isinstance(size, int) else 1 for size in tensor.shape]


def import_stage(
    plan: bytes, stage: str, chosen: Arithmetic, threads: int | None, runs_at_once: int = 1
) -> Any:
    """The `openvino.CompiledModel` of a stage from what `compile_plan` gave on this processor.

    Raises:
        InputError: OpenVINO refuses it, for example because it compiled it for other instructions.
    """
    try:
        # The properties are not in the plan: without them, OpenVINO would compute an FP32 stage in BF16.
        options = properties(stage_hint(stage, chosen), threads, runs_at_once)
        return core().import_model(plan, DEVICE, options)
    except RuntimeError as error:
        raise InputError(f"OpenVINO {version()} refuses the plan of {stage} ({error_line(error)})") from error
