"""The check of every exported stage against PyTorch, on a photo, and an emulation of half precision.

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
import torch
import torch.nn.functional as F
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from torch import Tensor

from ..bundle import HALF_PRECISIONS, Bundle, Stage, TensorSpec, file_record, write_manifest
from ..engines.ort.cpu import OnnxRuntimeEngine
from ..errors import InputError
from ..host import source_coordinates
from ..model import SED
from ..model.labels import survivors
from ..model.text import tokenize
from ..stages import BY_NAME, DECODER, SELECT
from .stages import GraphSpec

PHOTO = Path(__file__).with_name("verification.jpg")
CATEGORIES = (
    "cup", "saucer", "coffee", "spoon", "table", "wood", "plate", "sky", "tree", "person", "car", "dog",
)  # fmt: skip
# Largest error, relative to the larger of 1 and the largest absolute value. A half-precision stage is run on
# rounded inputs and compared with FP32, so the error is that of rounding by 2^-11 or 2^-8 in a few dozen
# layers.
RELATIVE_LIMITS = {"fp32": 1e-4, "fp16": 5e-3, "bf16": 4e-2}
# The largest error says little about 8-bit products: each rounds to a 255th of its largest activation, so one
# outlying position decides it. The root mean square, relative to the output's, was below 1 % for sed-tiny and
# 2.7 % for sed-b with large random weights; a wrong scale or a saturated product gives tens of percent.
MEAN_SQUARE_LIMITS = {"int8": 0.08}
# Share of the pixels whose votes or labels may differ: two categories may be as close as rounding.
PIXEL_LIMITS = {"fp32": 1 / 500, "fp16": 1 / 50, "bf16": 1 / 8}
# The error reported for NaN and infinity, which JSON cannot hold.
ERROR_NOT_FINITE = float(np.finfo(np.float32).max)
# Half precision as numpy and ONNX call it.
HALF_DTYPES = ("float16", "bfloat16")
HALF_TYPES = (TensorProto.FLOAT16, TensorProto.BFLOAT16)


@dataclass(frozen=True)
class Check:
    """The comparison of one output of one stage.

    Attributes:
        stage: name of the stage.
        output: name of the output.
        error: in the unit of `measure`; `ERROR_NOT_FINITE` where a value is NaN or infinite.
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


def photo() -> np.ndarray:
    """The photo, uint8 (H, W, 3)."""
    return np.array(Image.open(PHOTO).convert("RGB"))


def verification_inputs(model: SED, names: Sequence[str] = CATEGORIES) -> dict[str, Tensor]:
    """Inputs of the first stages: the photo, and a sentence for each category name."""
    sentences = [model.templates[0].replace("{}", name) for name in names]
    return {
        "image": torch.from_numpy(photo()).unsqueeze(0),
        "tokens": tokenize(sentences, model.clip.context_length),
    }


def derive_inputs(spec: GraphSpec, tensors: dict[str, Tensor], model: SED) -> None:
    """Add to `tensors` the inputs of a stage that the host computes: prompts, kept indices, coordinates.

    Args:
        spec: the stage.
        tensors: inputs and outputs of the stages before it, by name.
        model: the network.
    """
    if spec.name == "scout":
        tensors["text"] = random_prompts(tensors["embedding"], len(model.templates))
    elif spec.stage == SELECT:
        votes = tensors["votes0"]
        tensors["votes"] = votes
        # As in the table of a later rejection point, whose last categories are padding.
        tensors["ids"] = torch.where(torch.arange(votes.shape[1]) < 9, torch.arange(votes.shape[1]) * 3, -1)
        tensors["rule"] = torch.tensor([1] * 4 + [0] * 4 + [2, 5], dtype=torch.int32)
        tensors["slots"] = torch.arange(8)
    elif spec.stage.gathers_for:
        following = BY_NAME[spec.stage.gathers_for]
        before = DECODER[DECODER.index(following) - 1]
        assert before.votes and following.kept
        tensors[following.kept] = survivors(tensors[before.votes], k=4)
    elif spec.name == "label":
        categories, grid = tensors["logits"].shape[:2]
        height, width = tensors["image"].shape[1:3]
        # Not 0, 1, 2 …, with which a graph that lost the lookup would pass.
        tensors["kept"] = torch.arange(categories) * 3 + 1
        tensors["rows"] = torch.from_numpy(source_coordinates(grid, height))
        tensors["columns"] = torch.from_numpy(source_coordinates(grid, width))


def random_prompts(embedding: Tensor, count: int) -> Tensor:
    """Unit vectors (T, count, C) near each embedding, (T, C), in place of embedded prompts."""
    noise = torch.randn(
        embedding.shape[0], count, embedding.shape[1], generator=torch.Generator().manual_seed(0)
    )
    return F.normalize(embedding.unsqueeze(1) + 0.5 * F.normalize(noise, dim=-1), dim=-1)


def verify_stage(
    spec: GraphSpec, bundle: Bundle, tensors: dict[str, Tensor], precision: str = "fp32"
) -> list[Check]:
    """Run one stage in ONNX Runtime, in its own precision, and in PyTorch in FP32 on the same inputs.

    Args:
        spec: the FP32 stage.
        bundle: contains its graph.
        tensors: inputs by name; PyTorch's outputs are added to them, as inputs of later stages.
        precision: decides the limits.

    Raises:
        InputError: an output has another dtype or shape than PyTorch's.
    """
    expected = spec.run(tensors)
    stage = bundle.manifest.stages[spec.name]
    outputs = OnnxRuntimeEngine(bundle, spec.name).run(
        {tensor.name: tensors[tensor.name].numpy().astype(tensor.dtype) for tensor in stage.inputs}
    )
    # Those of a half-precision stage are not PyTorch's.
    dtypes = {tensor.name: np.dtype(tensor.dtype) for tensor in stage.outputs}
    checks = []
    for name, tensor in expected.items():
        output, reference = outputs[name], tensor.numpy()
        if (output.dtype, output.shape) != (dtypes[name], reference.shape):
            raise InputError(
                f"stage {spec.name}: its graph gives {name} as {output.dtype} {output.shape}, expected "
                f"{dtypes[name]} {reference.shape}; try other versions of torch, onnx or onnxruntime"
            )
        checks.append(compare(spec.name, name, output, reference, precision))
    tensors.update(expected)
    return checks


def compare(stage: str, name: str, output: np.ndarray, reference: np.ndarray, precision: str) -> Check:
    """Check the output `name` of a stage against PyTorch's, an array of the same shape."""
    if not np.issubdtype(reference.dtype, np.floating):
        if name == BY_NAME[stage].votes:
            # A pixel whose vote differs counts for one category less and for another one more.
            error = float(np.abs(output.astype(np.int64) - reference).sum(1).max()) / 2
            pixels = int(reference[0].sum())
        else:
            # What is selected depends on whole numbers alone.
            error, pixels = float((output != reference).sum()), 0 if stage == SELECT.name else reference.size
        return Check(stage, name, error, float(np.ceil(pixels * PIXEL_LIMITS[precision])), "pixels")
    with np.errstate(invalid="ignore"):
        differences = np.abs(output.astype(np.float32) - reference)
    if precision in MEAN_SQUARE_LIMITS:
        error, measure = root_mean_square(differences), "rms"
        limit = MEAN_SQUARE_LIMITS[precision] * root_mean_square(reference)
    else:
        error, measure = differences.max(), "largest"
        limit = RELATIVE_LIMITS[precision] * max(1.0, float(np.abs(np.nan_to_num(reference)).max()))
    finite_error = float(error) if np.isfinite(error) else ERROR_NOT_FINITE
    return Check(stage, name, finite_error, limit, measure)


def root_mean_square(values: np.ndarray) -> float:
    """Root of the mean square, summed in float64."""
    return float(np.sqrt(np.square(values, dtype=np.float64).mean()))


@contextlib.contextmanager
def emulate_half(bundle: Bundle) -> Iterator[Bundle]:
    """A bundle that runs on the CPU and rounds as a half-precision one does after every operator.

    Args:
        bundle: of any precision.

    Yields:
        The emulation, whose folder exists inside the block; for other precisions `bundle` itself.
    """
    if bundle.manifest.precision not in HALF_PRECISIONS:
        yield bundle
        return
    with tempfile.TemporaryDirectory(prefix="sed-trt-") as folder:
        yield write_emulation(bundle, Path(folder))


def write_emulation(bundle: Bundle, folder: Path) -> Bundle:
    """Write the emulation of a half-precision bundle to the empty `folder` and open it."""
    for name in bundle.manifest.files:
        if not name.endswith(".onnx"):
            shutil.copyfile(bundle.path / name, folder / name)
    stages = {}
    for name, stage in bundle.manifest.stages.items():
        model = onnx.load(bundle.verified(stage.file))
        round_in_fp32(model)
        onnx.save(model, folder / stage.file)
        stages[name] = Stage(stage.file, in_fp32(stage.inputs), in_fp32(stage.outputs))
    files = {name: file_record(folder / name) for name in bundle.manifest.files}
    write_manifest(folder, replace(bundle.manifest, precision="fp32", stages=stages, files=files))
    return Bundle.open(folder)


def in_fp32(tensors: tuple[TensorSpec, ...]) -> tuple[TensorSpec, ...]:
    """The manifest's description with float32 instead of half precision."""
    return tuple(
        replace(tensor, dtype="float32") if tensor.dtype in HALF_DTYPES else tensor for tensor in tensors
    )


def round_in_fp32(model: onnx.ModelProto) -> None:
    """Rewrite a graph in place: half-precision values become FP32 and are rounded where they are computed."""
    graph = model.graph
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    half_types = {
        value.name: value.type.tensor_type.elem_type
        for value in (*inferred.value_info, *inferred.input, *inferred.output)
        if value.type.tensor_type.elem_type in HALF_TYPES
    }
    for value in (*graph.input, *graph.output):
        if value.name in half_types:
            value.type.tensor_type.elem_type = TensorProto.FLOAT
    for tensor in graph.initializer:
        if tensor.data_type in HALF_TYPES:
            tensor.CopyFrom(as_float(tensor))
    rounded_inputs = {
        value.name: f"{value.name}.rounded" for value in graph.input if value.name in half_types
    }
    nodes = [
        node
        for name, rounded in rounded_inputs.items()
        for node in rounding_nodes(name, rounded, half_types[name])
    ]
    for node in graph.node:
        node.input[:] = [rounded_inputs.get(name, name) for name in node.input]
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.TENSOR and attribute.t.data_type in HALF_TYPES:
                attribute.t.CopyFrom(as_float(attribute.t))
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i in HALF_TYPES:
                attribute.i = TensorProto.FLOAT
        names = list(node.output)
        node.output[:] = [f"{name}.exact" if name in half_types else name for name in names]
        nodes.append(node)
        for name in names:
            if name in half_types:
                nodes += rounding_nodes(f"{name}.exact", name, half_types[name])
    del graph.node[:]
    graph.node.extend(nodes)


def rounding_nodes(source: str, result: str, half_type: int) -> list[onnx.NodeProto]:
    """Two nodes that round the FP32 value `source` to the nearest number of `half_type`, which stays FP32."""
    return [
        helper.make_node("Cast", [source], [f"{result}.half"], to=half_type),
        helper.make_node("Cast", [f"{result}.half"], [result], to=TensorProto.FLOAT),
    ]


def as_float(tensor: onnx.TensorProto) -> onnx.TensorProto:
    """A half-precision tensor as FP32, which has all of its values."""
    return numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), tensor.name)
