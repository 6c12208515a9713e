"""What OpenVINO computes for the precision of a bundle, and how its graphs are brought to that."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...bundle import Bundle, Stage
from ...errors import InputError
from ...stages import BY_NAME, COMPUTE, FOLD, TensorDefinition
from ..ort.session import check_eight_bit
from .library import SelfTest, abilities, library, processor, self_test

# The precision that OpenVINO is asked for where BF16 is computed. With "bf16" it computes the FP32 islands of
# a graph in BF16 as well, except for sums inside its kernels, and up to the last product before an output;
# with "f32" it keeps the islands as the graph has them, and converts at their borders.
BF16_HINT = "bf16"
# The low precisions that a bundle of a precision needs, for `self_test`.
TESTED: Mapping[str, tuple[str, ...]] = {"fp32": (), "fp16": (), "bf16": ("bf16",), "int8": ("int8", "bf16")}


@dataclass(frozen=True)
class Arithmetic:
    """What is computed for a bundle.

    Attributes:
        hint: what OpenVINO is asked for in stages that follow the bundle's precision: "f32" or "bf16".
        dtype: of the tensors between stages that follow it: "float32" or "bfloat16".
        note: where that is not what the bundle says, or is worth saying, why, as one phrase; else None.
    """

    hint: str
    dtype: str
    note: str | None = None


def arithmetic(precision: str, tests: Mapping[str, SelfTest]) -> Arithmetic:
    """What is computed for a bundle of `precision` on a processor with these self-tests.

    `tests` holds those of `TESTED[precision]`.

    Raises:
        InputError: an 8-bit bundle, and 8-bit products are wrong on this processor.
    """
    if precision == "fp32":
        return Arithmetic("f32", "float32")
    if precision == "fp16":
        return Arithmetic("f32", "float32", "FP16 weights computed in FP32, which CPUs do faster")
    bf16 = tests["bf16"]
    if not bf16.passed:
        why = f"BF16 failed its self-test on this processor: {bf16.outcome}"
    elif not bf16.on_amx:
        why = "this processor has no AMX, without which BF16 is slower"
    else:
        why = None
    if precision == "bf16":
        if why is None:
            return Arithmetic(BF16_HINT, "bfloat16", "computed in BF16 on AMX")
        return Arithmetic("f32", "float32", f"BF16 weights computed in FP32: {why}")
    if not (int8 := tests["int8"]).passed:
        raise InputError(
            f"backend openvino: 8-bit products failed their self-test on this processor: {int8.outcome}; "
            "use a bundle of --precision fp32"
        )
    if why is None:
        return Arithmetic(BF16_HINT, "bfloat16", "8-bit products, the rest in BF16 on AMX")
    return Arithmetic("f32", "float32", f"8-bit products, the rest in FP32: {why}")


def bundle_arithmetic(bundle: Bundle) -> Arithmetic:
    """What is computed for a bundle on this processor, after the self-tests that it needs.

    Raises:
        InputError: OpenVINO is missing or broken, or cannot compute the bundle's 8-bit products.
    """
    processor()
    check_eight_bit(bundle)
    precision = bundle.manifest.precision
    return arithmetic(precision, {each: self_test(each) for each in TESTED[precision]})


def compiled_for(chosen: Arithmetic) -> str:
    """What a compiled model depends on, beside its graph and the version of OpenVINO."""
    return f"{processor()} with {', '.join(abilities())}, computing in {chosen.hint} on {chosen.dtype}"


def prepared_model(model: Any, stage: str, chosen: Arithmetic) -> Any:
    """A model that computes what was chosen, from one as OpenVINO reads it from the graph.

    Args:
        model: `openvino.Model`; not to be used again.
        stage: its name.
        chosen: of the bundle.
    """
    if chosen.dtype == "float32":
        _widen(model)
    return _with_borders(model, stage, chosen.dtype)


def stage_hint(stage: str, chosen: Arithmetic) -> str:
    """What OpenVINO is asked for in a stage: FP32 where the stage is FP32 in every bundle."""
    return "f32" if BY_NAME[stage].fp32_reason else chosen.hint


def tensor_dtypes(stage: str, description: Stage, chosen: Arithmetic) -> dict[str, str]:
    """Name to dtype of the inputs and outputs of a stage as they travel."""
    following = _following(stage)
    return {
        tensor.name: chosen.dtype if tensor.name in following else tensor.dtype
        for tensor in (*description.inputs, *description.outputs)
    }


def _following(stage: str) -> set[str]:
    """Names of a stage's inputs and outputs that travel in `Arithmetic.dtype`."""

    def follows(tensor: TensorDefinition) -> bool:
        # The embeddings of a vocabulary are rounded once, not in every image. Folding adds them up in FP32.
        return tensor.dtype == COMPUTE or (tensor.name in ("text", "kept_text") and stage != FOLD.name)

    definition = BY_NAME[stage]
    return {tensor.name for tensor in (*definition.inputs, *definition.outputs) if follows(tensor)}


def round_to_bf16(array: np.ndarray) -> np.ndarray:
    """Finite float32 values rounded to the nearest, ties to even, as uint16 that holds their bits."""
    bits = np.ascontiguousarray(array).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def _widen(model: Any) -> None:
    """Compute a model in FP32: its weights are converted, and its conversions to half and back go.

    OpenVINO leaves BF16 as it is where the processor has instructions for it, whatever it is asked for.
    """
    openvino = library()
    op = openvino.opset13
    half = (openvino.Type.f16, openvino.Type.bf16)
    lowered = [
        node
        for node in model.get_ordered_ops()
        if node.get_type_name() in ("Constant", "Convert") and node.get_output_element_type(0) in half
    ]
    for parameter in model.get_parameters():
        if parameter.get_element_type() in half:
            parameter.set_element_type(openvino.Type.f32)
    for node in lowered:
        readers = node.output(0).get_target_inputs()
        source = node if node.get_type_name() == "Constant" else node.input_value(0)
        wide = op.convert(source, "f32").output(0)
        for reader in readers:
            reader.replace_source_output(wide)
        if node.get_type_name() == "Convert":
            # An output of the model is found by its name.
            wide.set_names(node.output(0).get_names())
    model.validate_nodes_and_infer_types()


def _with_borders(model: Any, stage: str, dtype: str) -> Any:
    """A model with its inputs and outputs that follow the precision in `dtype`, whatever it computes in."""
    openvino = library()
    wanted = _following(stage)
    travelling = openvino.Type.bf16 if dtype == "bfloat16" else openvino.Type.f32
    borders = openvino.preprocess.PrePostProcessor(model)
    changed = False
    for ports, border in ((model.inputs, borders.input), (model.outputs, borders.output)):
        for index, port in enumerate(ports):
            if wanted & port.get_names() and port.get_element_type() != travelling:
                border(index).tensor().set_element_type(travelling)
                changed = True
    return borders.build() if changed else model
