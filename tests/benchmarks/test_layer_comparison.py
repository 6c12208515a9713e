"""The layers of a stage on two engines: ONNX Runtime for real, TensorRT on a GPU in numpy."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from sed_trt.bundle import Bundle
from sed_trt.cli.main import main
from sed_trt.engines.build import target as build_target
from sed_trt.engines.device.gpu import Gpu
from sed_trt.engines.trt.library import Library
from sed_trt.errors import InputError
from sed_trt.tests.fakes.device import FakeDevice
from sed_trt.tests.fakes.engines import STAGES
from sed_trt.tests.fakes.manifest import fake_manifest
from sed_trt.tests.fakes.tensorrt import fake_tensorrt

pytest.importorskip("polygraphy", reason="Polygraphy is not installed; pip install -e '.[layers]'")

from sed_trt.benchmarks.precision import layer_comparison as module
from sed_trt.benchmarks.precision.layer_comparison import (
    MarkedTensor,
    TensorRTRunner,
    compare_layers,
    compare_with_bundle,
    float_tensors,
    layer_error,
    stage_inputs,
)

A6000 = Gpu("NVIDIA RTX A6000", (8, 6), "13.0", 48 << 30)


def image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)


def test_half_precision_against_single(tiny_bundle: Path, tiny_bundle_fp16: Path) -> None:
    bundle, reference = Bundle.open(tiny_bundle_fp16), Bundle.open(tiny_bundle)
    errors = compare_with_bundle(bundle, "decode1", image(), reference)
    assert {"x1", "logits1"} <= {error.tensor for error in errors}
    positions = [error.position for error in errors]
    assert positions == sorted(positions)
    assert 0 < max(error.relative_error for error in errors) < 0.1
    assert "Cast" not in {error.operator for error in errors}
    same = compare_with_bundle(reference, "decode1", image(), reference)
    assert len(same) > len({"x1", "cost1", "logits1"})
    assert {error.max_error for error in same} == {0.0}


def test_the_layer_where_values_part_is_the_first(tiny_bundle: Path, tmp_path: Path) -> None:
    bundle = Bundle.open(tiny_bundle)
    graph = bundle.verified("decode2.onnx")
    model = onnx.load(graph)
    names = {weight.name: weight for weight in model.graph.initializer}
    products = [
        (position, weight)
        for position, node in enumerate(model.graph.node)
        if node.op_type in ("Conv", "MatMul", "Gemm")
        for weight in node.input[1:2]
        if weight in names and sum(list(node.input).count(weight) for node in model.graph.node) == 1
    ]
    changed, weight = products[len(products) // 2]
    values = numpy_helper.to_array(names[weight])
    names[weight].CopyFrom(numpy_helper.from_array(values * np.float32(1.5), weight))
    other = tmp_path / "other.onnx"
    onnx.save(model, other)
    inputs, tensors = stage_inputs(bundle, "decode2", image()), float_tensors(graph)
    first, second = (module._onnxruntime(file, list(tensors)) for file in (graph, other))
    wrong = [error for error in compare_layers(first, second, inputs, inputs, tensors) if error.max_error > 0]
    assert (wrong[0].position, wrong[0].operator) == (changed, model.graph.node[changed].op_type)
    assert wrong[0].relative_error == pytest.approx(0.5, rel=0.5)


def test_graphs_of_other_operators(tiny_bundle: Path) -> None:
    bundle = Bundle.open(tiny_bundle)
    with pytest.raises(
        InputError, match=r"--against: .*decode2.onnx and .*decode1.onnx have other operators"
    ):
        module.same_tensors(bundle.verified("decode2.onnx"), bundle.verified("decode1.onnx"))


def test_errors_of_values() -> None:
    tensor = MarkedTensor(3, "Add", "float32")
    error = layer_error("x", tensor, np.array([1, 2, 7], np.float16), np.array([1, 2, 3], np.float32))
    assert (error.position, error.tensor, error.operator) == (3, "x", "Add")
    assert (error.max_error, error.peak) == (4, 3)
    assert error.relative_error == pytest.approx(4 / np.sqrt(14))
    zero = np.zeros(2, np.float32)
    assert layer_error("x", tensor, zero, zero).relative_error == 0
    assert layer_error("x", tensor, zero + 1, zero).relative_error == float("inf")
    broken = layer_error("x", tensor, np.array([np.nan, 1], np.float32), zero + 1)
    assert broken.relative_error == broken.max_error == float("inf")


@pytest.mark.parametrize("backend", ["tensorrt", "tensorrt-rtx"])
def test_tensorrt_is_a_runner(backend: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    device = FakeDevice()
    monkeypatch.setattr(module, "open_device", lambda: device)
    library = Library(backend, fake_tensorrt(device=device), "1")
    stage = fake_manifest().stages["scout"]
    described = type(stage)(str(tmp_path / "scout.onnx"), stage.inputs, stage.outputs)
    random = np.random.default_rng(0)
    inputs = {
        "embed": random.random((1, 3, 2, 2), np.float32),
        "text": random.random((5, 1, 3), np.float32),
    }
    expected = STAGES["scout"](inputs)

    class Reference(module.BaseRunner):
        get_input_metadata_impl = TensorRTRunner.get_input_metadata_impl
        _stage = stage

        def infer_impl(self, feed_dict: Any) -> Any:
            self.inference_time = 0.0
            return expected

    runner = TensorRTRunner(b"scout", described, library, "rebuild it")
    tensors = {"logits0": MarkedTensor(0, "Einsum", "float32")}
    (error,) = compare_layers(Reference(name="numpy"), runner, inputs, inputs, tensors)
    assert (error.max_error, error.peak) == (0, float(expected["logits0"].max()))
    assert device.closed
    assert device.memory == {}
    with pytest.raises(InputError, match=r"tensorrt.* cannot load it .*build it again with `rebuild it"):
        compare_layers(
            Reference(name="numpy"),
            TensorRTRunner(b"refused: no", described, library, "rebuild it"),
            inputs,
            inputs,
            tensors,
        )


def test_the_engine_is_built_for_the_shapes_at_hand(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of the way but TensorRT itself: the graph with marked outputs, its profile and its flags."""
    taken: dict[str, Any] = {}

    def build_plan(recipe: Any, graph: Path, profiles: Any, report: Any) -> tuple[bytes, None]:
        model = onnx.load(graph)
        taken.update(recipe=recipe, profiles=profiles, outputs=[each.name for each in model.graph.output])
        return b"plan", None

    def runner(plan: bytes, stage: Any, library: Library, rebuild: str) -> Any:
        taken.update(plan=plan, stage=stage)
        graph = Bundle.open(tiny_bundle).verified("decode1.onnx")
        return module._onnxruntime(graph, [output.name for output in stage.outputs])

    library = Library("tensorrt", fake_tensorrt(), "11.0")
    monkeypatch.setattr(module, "find_gpu", lambda: A6000)
    monkeypatch.setattr(build_target, "find_gpu", lambda: A6000)
    monkeypatch.setattr(module, "load_library", lambda backend: library)
    monkeypatch.setattr(module, "check_driver", lambda backend, gpu: None)
    monkeypatch.setattr(module, "build_plan", build_plan)
    monkeypatch.setattr(module, "TensorRTRunner", runner)
    errors = module.compare_with_tensorrt(Bundle.open(tiny_bundle), "decode1", image())
    assert {error.max_error for error in errors} == {0.0}
    assert taken["outputs"] == [error.tensor for error in errors]
    assert (taken["plan"], taken["recipe"].target) == (b"plan", "sm86")
    (profile,) = taken["profiles"]
    (kept,) = {shape for shape in profile["kept0"]}
    assert 4 <= kept[0] <= len(module.CATEGORIES)
    assert [shape[0] for shape in profile["kept_text"]] == [kept[0]] * 3


@pytest.mark.parametrize("stage", ["gather2", "select", "label_gpu", "nothing"])
def test_stages_that_have_no_layers_to_compare(stage: str, tiny_bundle: Path) -> None:
    with pytest.raises(
        InputError, match=rf"has no stage '{stage}' to compare; choose one of text, pixels"
    ) as caught:
        module.compare_with_bundle(Bundle.open(tiny_bundle), stage, image(), Bundle.open(tiny_bundle))
    assert "gather" not in str(caught.value).split("choose")[1]


def test_command(tiny_bundle: Path, tiny_bundle_fp16: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["inspect", str(tiny_bundle_fp16), "--layers", "decode3", "--against", str(tiny_bundle)]
    assert main(command) == 0
    shown = capsys.readouterr()
    assert (
        "decode3: " in shown.out and "tensors compared; the 20 with the largest relative error" in shown.out
    )
    assert "relative error" in shown.out
    assert shown.err == ""
    assert main([*command, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert len(rows) > 20
    assert {"position", "tensor", "operator", "relative_error", "max_error", "peak"} == set(rows[0])


def test_a_gpu_is_needed_without_another_bundle(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def no_gpu() -> Gpu:
        raise InputError("GPU: none is here")

    monkeypatch.setattr(module, "find_gpu", no_gpu)
    assert main(["inspect", str(tiny_bundle), "--layers", "decode3"]) == 2
    assert capsys.readouterr().err == "sed-trt: error: GPU: none is here\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--layers", "decode9"], "has no stage 'decode9' to compare; choose one of text, pixels, image"),
        (["--against", "other"], "--against, --image: they go with --layers STAGE"),
        (["--layers", "image", "--against", "other"], "other: "),
    ],
)
def test_refused(
    arguments: list[str], message: str, tiny_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["inspect", str(tiny_bundle), *arguments]) == 2
    line = capsys.readouterr().err
    assert message in line
    assert line.count("\n") == 1


def test_polygraphy_is_missing(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delitem(sys.modules, "sed_trt.benchmarks.precision.layer_comparison")
    for name in [name for name in sys.modules if name.split(".")[0] == "polygraphy"]:
        monkeypatch.setitem(sys.modules, name, None)
    assert main(["inspect", str(tiny_bundle), "--layers", "image"]) == 2
    assert "the package 'polygraphy" in capsys.readouterr().err
