"""Half-precision graphs: where they are half, where they are not, and large activations do not overflow."""

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, numpy_helper
from onnx.reference import ReferenceEvaluator
from torch import nn

from sed_trt.bundle import Bundle
from sed_trt.engines.ort.cpu import OnnxRuntimeEngine
from sed_trt.errors import InputError
from sed_trt.export import VerificationError, export_bundle
from sed_trt.export.onnx_graph import write_graph
from sed_trt.export.precision import ISLANDS, OPSETS, PRECISIONS, Island, lower_spec
from sed_trt.export.stages import GraphSpec, graph_specs
from sed_trt.export.verification import emulate_half
from sed_trt.model import SED
from sed_trt.model.checkpoint import save
from sed_trt.model.decoder import CostMap
from sed_trt.stages import FOLD, STAGES
from sed_trt.tests.fakes.exports import reuse_graphs

HALF_STAGES = tuple(stage.name for stage in STAGES if stage.half_weights)
ELEMENT_TYPES = {"fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}
DTYPES = {"fp16": "float16", "bf16": "bfloat16"}
Types = dict[str, int]


@pytest.fixture(params=["fp16", "bf16"])
def half(request: pytest.FixtureRequest) -> tuple[str, Path]:
    """A half precision, and sed-tiny's bundle of it."""
    return request.param, request.getfixturevalue(f"tiny_bundle_{request.param}")


def typed(path: Path) -> tuple[onnx.GraphProto, Types]:
    """A graph, and the element type of each of its values."""
    model = onnx.shape_inference.infer_shapes(onnx.load(path), strict_mode=True)
    graph = model.graph
    types = {
        value.name: value.type.tensor_type.elem_type
        for value in (*graph.value_info, *graph.input, *graph.output)
    }
    return graph, types | {tensor.name: tensor.data_type for tensor in graph.initializer}


def heads_of(graph: onnx.GraphProto) -> set[str]:
    """Names of the weights of convolutions to one channel of logits."""
    shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    names = {node.input[1] for node in graph.node if node.op_type == "Conv"}
    return {
        name
        for name in names
        if len(shapes[name]) == 4 and shapes[name][0] == 1 and shapes[name][2:] == (3, 3)
    }


@pytest.mark.parametrize("stage", HALF_STAGES)
def test_what_is_half_and_what_is_not(half: tuple[str, Path], stage: str) -> None:
    precision, bundle = half
    element = ELEMENT_TYPES[precision]
    graph, types = typed(bundle / f"{stage}.onnx")
    found: dict[str, Counter[int]] = {}
    heads = heads_of(graph)
    for node in graph.node:
        kind = "Head" if node.op_type == "Conv" and node.input[1] in heads else node.op_type
        found.setdefault(kind, Counter())[types.get(node.input[0], 0)] += 1
    for kind in ("Conv", "ConvTranspose", "Gelu"):
        assert set(found.get(kind, {})) <= {element}, kind
    # TensorRT-RTX has none of bfloat16.
    assert precision == "fp16" or "ConvTranspose" not in found
    for kind in (
        "LayerNormalization",
        "GroupNormalization",
        "InstanceNormalization",
        "ReduceL2",
        "Elu",
        "Div",
        "Head",
    ):
        assert set(found.get(kind, {})) <= {TensorProto.FLOAT}, kind
    assert stage == "image" or found["Head"][TensorProto.FLOAT] == 1
    assert found.get("Conv", found["MatMul"])[element] > 0


@pytest.mark.parametrize("stage", HALF_STAGES)
def test_bf16_has_no_operator_that_cuda_lacks(tiny_bundle_bf16: Path, stage: str) -> None:
    """In ONNX Runtime: DepthToSpace of bfloat16, and Elu of the opset that bfloat16 needs."""
    graph, _ = typed(tiny_bundle_bf16 / f"{stage}.onnx")
    assert not {"DepthToSpace", "Elu"} & {node.op_type for node in graph.node}


def test_fp16_keeps_its_operators(tiny_bundle_fp16: Path) -> None:
    graph, _ = typed(tiny_bundle_fp16 / "decode1.onnx")
    operators = Counter(node.op_type for node in graph.node)
    assert operators["Elu"] == 2
    assert operators["ConvTranspose"] == 2
    assert "Exp" not in operators


@pytest.mark.parametrize("stage", HALF_STAGES)
def test_weights_are_half_but_for_islands(half: tuple[str, Path], stage: str) -> None:
    graph, _ = typed(half[1] / f"{stage}.onnx")
    matrices = {
        tensor.name: tensor.data_type
        for tensor in graph.initializer
        if sum(size > 1 for size in tensor.dims) > 1 and len(np.unique(numpy_helper.to_array(tensor))) > 2
    }
    whole = {name for name, element in matrices.items() if element == TensorProto.FLOAT}
    assert whole == heads_of(graph)
    assert ELEMENT_TYPES[half[0]] in matrices.values()


def test_scout_is_fp32_once_it_has_its_input(half: tuple[str, Path]) -> None:
    graph, types = typed(half[1] / "scout.onnx")
    halves = {name for name, element in types.items() if element == ELEMENT_TYPES[half[0]]}
    assert halves <= {"embed", *(node.output[0] for node in graph.node if node.op_type == "Cast")}


def test_manifest_says_the_types(half: tuple[str, Path]) -> None:
    precision, path = half
    manifest = Bundle.open(path).manifest
    assert manifest.precision == precision
    types = {
        tensor.name: tensor.dtype
        for stage in manifest.stages.values()
        for tensor in (*stage.inputs, *stage.outputs)
    }
    between = {"embed", "guidance1", "guidance2", "guidance3", "x1", "cost1", "x2", "cost2"}
    between |= {"kept_x1", "kept_cost1", "kept_x2", "kept_cost2"}
    between |= {tensor.name for tensor in FOLD.outputs}
    assert {name for name, dtype in types.items() if dtype == DTYPES[precision]} == between
    for name in ("pixels", "text", "embedding", "logits0", "logits", "scores", "rows", "columns"):
        assert types[name] == "float32"


def test_fp32_stages_are_the_same_files_in_every_bundle(tiny_bundle: Path, half: tuple[str, Path]) -> None:
    whole, halved = Bundle.open(tiny_bundle).manifest, Bundle.open(half[1]).manifest
    same = {
        stage.name
        for stage in STAGES
        if whole.files[f"{stage.name}.onnx"] == halved.files[f"{stage.name}.onnx"]
    }
    assert same == {stage.name for stage in STAGES if stage.fp32_reason is not None}


def test_unknown_precision(tiny_checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'int4' is unknown; choose one of fp32, fp16, bf16"):
        export_bundle(tiny_checkpoint, tmp_path / "bundle", precision="int4")
    assert list(tmp_path.iterdir()) == []


def test_lowering_leaves_the_stage_alone(tiny_model: SED) -> None:
    before = {name: tensor.clone() for name, tensor in tiny_model.state_dict().items()}
    for spec in graph_specs(tiny_model):
        lower_spec(spec, "fp16")
    after = tiny_model.state_dict()
    assert all(
        tensor.dtype == torch.float32 and torch.equal(tensor, before[name]) for name, tensor in after.items()
    )


@pytest.mark.parametrize("island", ISLANDS, ids=lambda island: island.name)
def test_every_island_is_in_the_network(tiny_model: SED, island: Island) -> None:
    stages = [spec.module for spec in graph_specs(tiny_model)]
    assert any(isinstance(module, island.modules) for stage in stages for module in stage.modules())


def worst_error(spec: GraphSpec, graph: Path) -> float:
    """Largest error of a graph against PyTorch in FP32, relative to the larger of 1 and the largest value.

    The graph is run by ONNX's reference implementation, which computes each step in the types that the graph
    says, sums in FP16 included.
    """
    expected = spec.run(spec.inputs)
    inputs = lower_spec(spec, "fp16").inputs
    found = ReferenceEvaluator(str(graph)).run(
        None, {name: tensor.numpy() for name, tensor in inputs.items()}
    )
    errors = []
    for (name, reference), array in zip(expected.items(), found, strict=True):
        if not name.startswith("votes"):
            difference = np.nan_to_num(np.abs(array.astype(np.float32) - reference.numpy()), nan=np.inf)
            errors.append(float(difference.max()) / max(1.0, float(reference.abs().max())))
    return max(errors)


@pytest.mark.filterwarnings("ignore:overflow encountered")
def test_large_activations_overflow_where_layer_norm_is_half(tiny_checkpoint: Path, tmp_path: Path) -> None:
    """The known ConvNeXt failure: activations that are finite in FP16, but whose squares are not."""
    model = SED.from_checkpoint(tiny_checkpoint)
    with torch.no_grad():
        # The first layer norm of decode1 reads what this convolution gives.
        for parameter in model.decoder.decoder1.cnext.conv_dw.parameters():
            parameter.mul_(3000)
    spec = next(spec for spec in graph_specs(model) if spec.name == "decode1")
    (layer_norm,) = (island for island in ISLANDS if island.name == "layer norm")
    errors = []
    for left_out in ([], [layer_norm]):
        path = tmp_path / f"{len(left_out)}.onnx"
        write_graph(lower_spec(spec, "fp16", left_out), path, OPSETS["fp16"], {})
        errors.append(worst_error(spec, path))
    with_island, without_island = errors
    assert with_island < 5e-3
    assert without_island > 0.1


def test_graphs_that_overflow_are_not_exported(
    tiny_checkpoint: Path, tiny_bundle_fp16: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reuse_graphs(monkeypatch, tiny_bundle_fp16, traced=["decode1"])
    model = SED.from_checkpoint(tiny_checkpoint)
    mlp = model.decoder.decoder1.cnext.mlp
    with torch.no_grad():
        # The network stays about the same, but the values between the two layers exceed FP16.
        for parameter in mlp.fc1.parameters():
            parameter.mul_(2e4)
        mlp.fc2.weight.div_(2e4)
    save(model, tmp_path / "large.safetensors")
    with pytest.raises(VerificationError, match="decode1/x1"):
        export_bundle(tmp_path / "large.safetensors", tmp_path / "bundle", precision="fp16")
    assert not (tmp_path / "bundle").exists()


def test_emulation_rounds_what_the_graph_calls_half(half: tuple[str, Path], tiny_model: SED) -> None:
    precision, path = half
    bundle = Bundle.open(path)
    spec = next(spec for spec in graph_specs(tiny_model) if spec.name == "decode2")
    inputs = {name: tensor.numpy() for name, tensor in spec.inputs.items()}
    with emulate_half(bundle) as emulation:
        assert emulation.manifest.precision == "fp32"
        outputs = OnnxRuntimeEngine(emulation, "decode2").run(inputs)
    for name, is_half in (("x2", True), ("cost2", True), ("logits2", False)):
        values = torch.from_numpy(outputs[name])
        assert torch.equal(values, values.to(PRECISIONS[precision]).float()) == is_half


def test_an_island_left_out_is_half(tiny_model: SED) -> None:
    spec = next(spec for spec in graph_specs(tiny_model) if spec.name == "decode1")
    (group_norm,) = (island for island in ISLANDS if island.name == "group norm")
    halved = lower_spec(spec, "fp16", [group_norm])
    seen: dict[type[nn.Module], torch.dtype] = {}

    def note(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        seen[type(module)] = inputs[0].dtype

    for module in halved.module.modules():
        if isinstance(module, nn.GroupNorm | CostMap):
            module.register_forward_pre_hook(note)
    halved.run(halved.inputs)
    assert seen == {nn.GroupNorm: torch.float16, CostMap: torch.float32}
