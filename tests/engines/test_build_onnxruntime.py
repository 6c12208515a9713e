"""Builds by ONNX Runtime, for the CPU."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from sed_trt.bundle import Bundle, Stage
from sed_trt.engines.build.build import build_engines, optimise_graph
from sed_trt.engines.ort.session import library as onnxruntime
from sed_trt.engines.profiles import Limits
from sed_trt.engines.store import find_built, read_plan
from sed_trt.errors import InputError
from sed_trt.tests.fakes.small_bundle import small_bundle


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    """A small one, whose graphs are none."""
    return small_bundle(tmp_path / "bundle")


def test_onnxruntime(tiny_bundle: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_bundle, tmp_path / "bundle")
    done = build_engines(Bundle.open(folder), "onnxruntime", "cpu")
    assert done.engines.folder.name.startswith(f"onnxruntime-{onnxruntime().__version__}-cpu-")
    assert find_built(Bundle.open(folder), "onnxruntime", None) == done.engines
    for name, stage in done.engines.stages.items():
        assert stage.profiles == ()
        session = onnxruntime().InferenceSession(read_plan(done.engines, name))
        assert [value.name for value in session.get_inputs()] == [value.name for value in stage.inputs]
        assert [value.name for value in session.get_outputs()] == [value.name for value in stage.outputs]
    assert build_engines(Bundle.open(folder), "onnxruntime").already_built


def test_onnxruntime_refuses_a_graph(bundle: Bundle) -> None:
    with pytest.raises(InputError, match=r"text\.onnx: ONNX Runtime .* cannot optimise it"):
        build_engines(bundle, "onnxruntime")
    assert {path.name for path in (bundle.path / "engines").iterdir()} == {".lock"}


def test_graph_that_cannot_be_written(tiny_bundle: Path, tmp_path: Path) -> None:
    graph, stage = tiny_bundle / "label.onnx", Bundle.open(tiny_bundle).manifest.stages["label"]
    with pytest.raises(InputError, match=r"label\.onnx: ONNX Runtime .* cannot optimise it .*; free space"):
        optimise_graph(graph, stage, tmp_path / "absent" / "label.onnx", lambda what, part: None)


def test_bfloat16_is_refused_before_anything_is_written(bundle: Bundle) -> None:
    stages = dict(bundle.manifest.stages)
    image = stages["image"]
    outputs = tuple(replace(tensor, dtype="bfloat16") for tensor in image.outputs)
    stages["image"] = Stage(image.file, image.inputs, outputs)
    half = Bundle(bundle.path, replace(bundle.manifest, stages=stages, precision="bf16"))
    with pytest.raises(InputError, match="no bfloat16 kernels for the CPU; use the backend openvino"):
        build_engines(half, "onnxruntime")
    assert not (bundle.path / "engines").exists()


def test_limits_are_refused_before_anything_is_written(bundle: Bundle) -> None:
    with pytest.raises(InputError, match="option max categories: onnxruntime has no such option"):
        build_engines(bundle, "onnxruntime", limits=Limits(max_categories=9))
    assert not (bundle.path / "engines").exists()
