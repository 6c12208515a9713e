"""Builds by the real TensorRT-RTX, which needs no GPU: every stage, and a graph it cannot take."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest

from sed_trt.bundle import Bundle
from sed_trt.cli.main import main
from sed_trt.engines.build.build import build_engines
from sed_trt.engines.build.tensorrt import Recipe, build_plan
from sed_trt.engines.profiles import Limits, stage_profiles
from sed_trt.engines.store import NetworkSummary, built_stages, find_built, read_plan
from sed_trt.engines.targets import BuildOptions
from sed_trt.engines.trt.library import load_library
from sed_trt.errors import InputError

pytest.importorskip("tensorrt_rtx")

BUNDLES = ("tiny_bundle", "tiny_bundle_fp16", "tiny_bundle_bf16", "base_bundle", "base_bundle_fp16")


def build(graph: Path, target: str, bundle: Bundle, stage: str) -> tuple[bytes, NetworkSummary]:
    recipe = Recipe(load_library("tensorrt-rtx"), BuildOptions(), target, graph.with_suffix(".timing"))
    profiles = stage_profiles(bundle.manifest, Limits())[stage]
    plan, network = build_plan(recipe, graph, profiles, lambda what, fraction: None)
    return bytes(plan), network


@pytest.mark.parametrize("target", ["sm86", "portable"])
@pytest.mark.parametrize("name", BUNDLES)
def test_every_stage_builds(name: str, target: str, request: pytest.FixtureRequest) -> None:
    bundle = Bundle.open(request.getfixturevalue(name))
    weights: dict[str, int] = {}
    for stage in built_stages("tensorrt-rtx", bundle.manifest):
        plan, network = build(bundle.verified(f"{stage}.onnx"), target, bundle, stage)
        assert len(plan) > 100_000
        assert network.layers
        for dtype, count in network.convolution_weights.items():
            weights[dtype] = weights.get(dtype, 0) + count
    half = {"fp16": "HALF", "bf16": "BF16"}.get(bundle.manifest.precision)
    assert weights[half] > 9 * weights["FLOAT"] if half else weights.keys() == {"FLOAT"}


@pytest.mark.parametrize("name", ["tiny_bundle", "tiny_bundle_fp16"])
def test_the_set_is_stored_and_found(
    name: str, request: pytest.FixtureRequest, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = shutil.copytree(request.getfixturevalue(name), tmp_path / "bundle")
    bundle = Bundle.open(folder)
    done = build_engines(bundle, "tensorrt-rtx", "a6000", Limits(max_categories=40))
    assert not done.already_built
    assert find_built(bundle, "tensorrt-rtx", None) == done.engines
    plan, _ = build(folder / "label_gpu.onnx", "sm86", bundle, "label_gpu")
    assert list(done.engines.stages)[-1] == "label_gpu"
    # The file is a plan as the library gives it, not a container of ours around one.
    assert {read_plan(done.engines, stage)[:4] for stage in done.engines.stages} == {plan[:4]}
    # No stage is in float32 by mistake.
    assert main(["inspect", str(folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["warnings"] == []
    assert build_engines(bundle, "tensorrt-rtx", "sm86", Limits(max_categories=40)).already_built


@pytest.fixture
def graph_of() -> Callable[[Path, str], Path]:
    """Writes a graph of one operator from x, float (N, 4), to y, int64."""

    def write(path: Path, operator: str) -> Path:
        helper = onnx.helper
        graph = helper.make_graph(
            [helper.make_node(operator, ["x"], ["y"], name="the_node")],
            "graph",
            [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["N", 4])],
            [helper.make_tensor_value_info("y", onnx.TensorProto.INT64, None)],
        )
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)]), path)
        return path

    return write


def test_unsupported_operator_is_named(
    graph_of: Callable[[Path, str], Path], tmp_path: Path, tiny_bundle: Path
) -> None:
    graph = graph_of(tmp_path / "image.onnx", "Unique")
    with pytest.raises(InputError) as caught:
        build(graph, "sm86", Bundle.open(tiny_bundle), "image")
    line = str(caught.value)
    assert line.startswith(f"{graph}: tensorrt-rtx {load_library('tensorrt-rtx').version} for sm86: ")
    assert "node 'the_node' (Unique): " in line
    assert "\n" not in line


def test_file_that_is_no_graph(tmp_path: Path, tiny_bundle: Path) -> None:
    graph = tmp_path / "image.onnx"
    graph.write_bytes(b"no graph")
    with pytest.raises(InputError, match="the graph cannot be parsed"):
        build(graph, "sm86", Bundle.open(tiny_bundle), "image")


def test_too_little_workspace(tiny_bundle: Path, tmp_path: Path) -> None:
    bundle = Bundle.open(tiny_bundle)
    recipe = Recipe(load_library("tensorrt-rtx"), BuildOptions(workspace=1), "sm86", tmp_path / "timing")
    profiles = stage_profiles(bundle.manifest, Limits())["text"]
    with pytest.raises(InputError, match="raise the workspace or leave it out"):
        build_plan(recipe, tiny_bundle / "text.onnx", profiles, lambda what, fraction: None)


def test_no_engines_of_8_bit_bundles(tiny_bundle_int8: Path) -> None:
    with pytest.raises(InputError, match="is an 8-bit bundle"):
        build_engines(Bundle.open(tiny_bundle_int8), "tensorrt-rtx")
    assert not (tiny_bundle_int8 / "engines").exists()
