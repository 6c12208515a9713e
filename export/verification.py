"""Every exported stage against PyTorch, on a photo.

The photo, verification.jpg, is "coffee" by Rachel Michetti, in the public domain (CC0).
"""

import contextlib
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import open_clip
import torch
import torch.nn.functional as F
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from torch import Tensor

from ..bundle import Bundle, Stage, TensorSpec, file_record, write_manifest
from ..engines.ort.cpu import OnnxRuntimeEngine
from ..errors import InputError
from ..model import SED
from ..model.labels import source_coordinates, survivors, vote_table
from .stages import GraphSpec

HALVES = (TensorProto.FLOAT16, TensorProto.BFLOAT16)
HALF_DTYPES = ("float16", "bfloat16")
HALF_PRECISIONS = ("fp16", "bf16")


@contextlib.contextmanager
def rounding(bundle: Bundle) -> Iterator[Bundle]:
    """The emulation of a half-precision bundle, there while the block runs; any other bundle as it is."""
    if bundle.manifest.precision not in HALF_PRECISIONS:
        yield bundle
        return
    with tempfile.TemporaryDirectory(prefix="sed-trt-") as folder:
        yield rounding_bundle(bundle, Path(folder))


def rounding_bundle(bundle: Bundle, folder: Path) -> Bundle:
    """Write FP32 graphs that round as those of `bundle` ask to the empty `folder`, and open that bundle."""
    for name in bundle.manifest.files:
        if not name.endswith(".onnx"):
            shutil.copyfile(bundle.path / name, folder / name)
    stages = {}
    for name, stage in bundle.manifest.stages.items():
        model = onnx.load(bundle.verified(stage.file))
        make_rounding(model)
        onnx.save(model, folder / stage.file)
        stages[name] = Stage(stage.file, widened(stage.inputs), widened(stage.outputs))
    files = {name: file_record(folder / name) for name in bundle.manifest.files}
    write_manifest(folder, replace(bundle.manifest, precision="fp32", stages=stages, files=files))
    return Bundle.open(folder)


def widened(tensors: tuple[TensorSpec, ...]) -> tuple[TensorSpec, ...]:
    """The manifest's description with float32 for half."""
    return tuple(
        replace(tensor, dtype="float32") if tensor.dtype in HALF_DTYPES else tensor for tensor in tensors
    )


def make_rounding(model: onnx.ModelProto) -> None:
    """Rewrite a graph: what is half becomes FP32 and is rounded to half where it is made."""
    graph = model.graph
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    halves = {
        value.name: value.type.tensor_type.elem_type
        for value in (*inferred.value_info, *inferred.input, *inferred.output)
        if value.type.tensor_type.elem_type in HALVES
    }
    for value in (*graph.input, *graph.output):
        if value.name in halves:
            value.type.tensor_type.elem_type = TensorProto.FLOAT
    for tensor in graph.initializer:
        if tensor.data_type in HALVES:
            tensor.CopyFrom(as_float(tensor))
    rounded_inputs = {value.name: f"{value.name}.rounded" for value in graph.input if value.name in halves}
    nodes = [
        node
        for name, rounded in rounded_inputs.items()
        for node in rounding_nodes(name, rounded, halves[name])
    ]
    for node in graph.node:
        node.input[:] = [rounded_inputs.get(name, name) for name in node.input]
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.TENSOR and attribute.t.data_type in HALVES:
                attribute.t.CopyFrom(as_float(attribute.t))
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i in HALVES:
                attribute.i = TensorProto.FLOAT
        names = list(node.output)
        node.output[:] = [f"{name}.exact" if name in halves else name for name in names]
        nodes.append(node)
        for name in names:
            if name in halves:
                nodes += rounding_nodes(f"{name}.exact", name, halves[name])
    del graph.node[:]
    graph.node.extend(nodes)


def rounding_nodes(source: str, result: str, half: int) -> list[onnx.NodeProto]:
    """Two nodes that round the FP32 value `source` to the nearest number of `half` and give it as FP32."""
    return [
        helper.make_node("Cast", [source], [f"{result}.half"], to=half),
        helper.make_node("Cast", [f"{result}.half"], [result], to=TensorProto.FLOAT),
    ]


def as_float(tensor: onnx.TensorProto) -> onnx.TensorProto:
    """A half-precision tensor as FP32, which holds its values exactly."""
    return numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), tensor.name)


PHOTO = Path(__file__).with_name("verification.jpg")
CATEGORIES = (
    "cup", "saucer", "coffee", "spoon", "table", "wood", "plate", "sky", "tree", "person", "car", "dog",
)  # fmt: skip
# Largest error, relative to the larger of 1 and the largest absolute value. A half-precision stage is run on
# rounded inputs and compared with FP32, so what counts is rounding by 2^-11 or 2^-8 in a few dozen layers.
RELATIVE_LIMITS = {"fp32": 1e-4, "fp16": 5e-3, "bf16": 4e-2}
# Of 8-bit products the largest error says little, since each rounds to a 255th of its largest activation: one
# position far out decides it. The root mean square, relative to the output's, was below 1 % for sed-tiny and
# 2.7 % for sed-b with lively weights; a wrong scale or a saturated product gives tens of percent.
MEAN_SQUARE_LIMITS = {"int8": 0.08}
# Share of the pixels that may vote or be labelled otherwise: two categories may lie as close as rounding.
PIXEL_LIMITS = {"fp32": 1 / 500, "fp16": 1 / 50, "bf16": 1 / 8}
# Stands for the error of NaN and infinity, which JSON does not have.
BOUNDLESS = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class Check:
    """One output of one stage.

    Attributes:
        stage: name of the stage.
        output: name of the output.
        error: `BOUNDLESS` where a value is NaN or infinite.
        limit: the largest error that passes.
        measure: what the error is. "largest": absolute difference from PyTorch, limited by `RELATIVE_LIMITS`
            times the larger of 1 and the largest absolute value. "rms": root mean square of the differences,
            limited by `MEAN_SQUARE_LIMITS` times that of PyTorch's values. "pixels": votes or labels that
            differ, limited by `PIXEL_LIMITS` times the pixels.
    """

    stage: str
    output: str
    error: float
    limit: float
    measure: str = "largest"

    @property
    def passed(self) -> bool:
        """Whether the error is within the limit."""
        return self.error <= self.limit


def verify_stage(
    spec: GraphSpec, bundle: Bundle, tensors: dict[str, Tensor], precision: str = "fp32"
) -> list[Check]:
    """Run one stage in ONNX Runtime, in its own precision, and in PyTorch in FP32 on the same inputs.

    Args:
        spec: the FP32 stage.
        bundle: holds its graph.
        tensors: inputs by name; PyTorch's outputs are added to them, as inputs of later stages.
        precision: decides the limits.

    Raises:
        InputError: an output has another dtype or shape than PyTorch's.
    """
    inputs = {name: tensors[name] for name in spec.inputs}
    with torch.no_grad():
        outputs = spec.module(*inputs.values())
    expected = dict(zip(spec.output_axes, outputs if isinstance(outputs, tuple) else (outputs,), strict=True))
    engine = OnnxRuntimeEngine(bundle, spec.name)
    stage = bundle.manifest.stages[spec.name]
    found = engine.run(
        {described.name: inputs[described.name].numpy().astype(described.dtype) for described in stage.inputs}
    )
    # Outputs may be rounded; of whole numbers every bit counts.
    types = {described.name: described.dtype for described in stage.outputs}
    checks = []
    for name, tensor in expected.items():
        reference, got = tensor.numpy(), found[name]
        if (got.dtype, got.shape) != (np.dtype(types[name]), reference.shape):
            raise InputError(
                f"stage {spec.name}: its graph gives {name} as {got.dtype} {got.shape}, expected "
                f"{types[name]} {reference.shape}; try other versions of torch, onnx or onnxruntime"
            )
        error, limit, measure = difference(name, got, reference, precision)
        checks.append(Check(spec.name, name, error, limit, measure))
    tensors.update(expected)
    return checks


def difference(name: str, got: np.ndarray, reference: np.ndarray, precision: str) -> tuple[float, float, str]:
    """Error, limit and measure of one output, as in `Check`; both arrays have the same shape."""
    if np.issubdtype(reference.dtype, np.floating):
        with np.errstate(invalid="ignore"):
            differences = np.abs(got.astype(np.float32) - reference)
        if precision in MEAN_SQUARE_LIMITS:
            error = np.nan_to_num(root_mean_square(differences), nan=BOUNDLESS, posinf=BOUNDLESS)
            return float(error), MEAN_SQUARE_LIMITS[precision] * root_mean_square(reference), "rms"
        error = np.nan_to_num(differences, nan=BOUNDLESS, posinf=BOUNDLESS).max()
        limit = RELATIVE_LIMITS[precision] * max(1.0, float(np.abs(np.nan_to_num(reference)).max()))
        return float(error), limit, "largest"
    if name.startswith("votes"):
        moved = float(np.abs(got.astype(np.int64) - reference).sum(1).max()) / 2
        pixels = int(reference[0].sum())
    else:
        moved, pixels = float((got != reference).sum()), reference.size
    return moved, float(np.ceil(pixels * PIXEL_LIMITS[precision])), "pixels"


def root_mean_square(values: np.ndarray) -> float:
    """Root of the mean square, summed in float64."""
    return float(np.sqrt(np.square(values, dtype=np.float64).mean()))


def verification_inputs(model: SED, names: Sequence[str] = CATEGORIES) -> dict[str, Tensor]:
    """What the first stages take: the photo, and one sentence for each category name."""
    image = np.array(Image.open(PHOTO).convert("RGB"))
    tokenizer = open_clip.SimpleTokenizer(context_length=model.clip.context_length)
    sentences = [model.templates[0].format(name) for name in names]
    return {"image": torch.from_numpy(image).unsqueeze(0), "tokens": tokenizer(sentences)}


def derive_inputs(spec: GraphSpec, tensors: dict[str, Tensor], model: SED) -> None:
    """Add to `tensors` what the host gives a stage: prompts, kept indices, coordinates."""
    if spec.name == "scout":
        tensors["text"] = prompts(tensors["embedding"], len(model.templates))
    elif spec.name.startswith("decode"):
        point = int(spec.name.removeprefix("decode")) - 1
        logits = tensors[f"logits{point}"]
        tensors[f"kept{point}"] = survivors(vote_table(logits), k=4)
    elif spec.name == "label":
        grid = tensors["logits"].shape[1]
        height, width = tensors["image"].shape[1:3]
        # Not 0, 1, 2 …, which would look the same had the graph lost their lookup.
        tensors["kept"] = torch.arange(tensors["logits"].shape[0]) * 3 + 1
        tensors["rows"] = source_coordinates(height, grid)
        tensors["columns"] = source_coordinates(width, grid)


def prompts(embedding: Tensor, count: int) -> Tensor:
    """Unit vectors (T, count, C) near each embedding, (T, C): as many as prompts, without embedding them."""
    noise = torch.randn(
        embedding.shape[0], count, embedding.shape[1], generator=torch.Generator().manual_seed(0)
    )
    return F.normalize(embedding.unsqueeze(1) + 0.5 * F.normalize(noise, dim=-1), dim=-1)
