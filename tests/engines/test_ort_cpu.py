"""ONNX Runtime on the CPU: optimised graphs where they were built, and bfloat16."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sed_trt.bundle import Bundle, Stage
from sed_trt.engines import backends, store
from sed_trt.engines.backends import open_engines
from sed_trt.engines.engine import Engine
from sed_trt.engines.ort.cpu import OnnxRuntimeEngine, OnnxRuntimeEngines
from sed_trt.engines.ort.cuda import OnnxRuntimeCudaEngine, OnnxRuntimeDevice
from sed_trt.engines.ort.session import library
from sed_trt.errors import InputError
from sed_trt.tests.fakes.manifest import with_other_guidance


@pytest.fixture
def bundle(tiny_bundle: Path) -> Bundle:
    """sed-tiny."""
    return Bundle.open(tiny_bundle)


IMAGE = {"image": np.random.default_rng(0).integers(0, 256, (1, 50, 40, 3), dtype=np.uint8)}


def test_arrays_stay_what_they_are(bundle: Bundle) -> None:
    engines = OnnxRuntimeEngines(bundle, None, "asked for")
    array = np.ones((1, 2))
    assert engines.to_device(array) is array
    assert engines.stack([array]) is array
    assert engines.stack([array, array]).shape == (2, 2)
    assert engines.buckets is None


def test_built_graphs_are_taken(tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = Bundle.open(shutil.copytree(tiny_bundle, tmp_path / "bundle"))
    (bundle.path / "engines").mkdir()
    asked: list[str] = []
    options = library().SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "pixels.onnx")
    library().InferenceSession(bundle.path / "pixels.onnx", options, providers=["CPUExecutionProvider"])

    def read_plan(built: object, stage: str) -> bytes:
        asked.append(stage)
        return (tmp_path / "pixels.onnx").read_bytes()

    monkeypatch.setattr(store, "find_built", lambda bundle, backend, gpu: "built")
    monkeypatch.setattr(store, "read_plan", read_plan)
    found = OnnxRuntimeEngines(bundle, None, "asked for")["pixels"].run(IMAGE)
    assert asked == ["pixels"]
    expected = OnnxRuntimeEngine(bundle, "pixels").run(IMAGE)
    assert np.allclose(found["pixels"], expected["pixels"], atol=1e-5)


def test_without_built_graphs_the_bundle_does(tiny_bundle: Path, tmp_path: Path) -> None:
    bundle = Bundle.open(shutil.copytree(tiny_bundle, tmp_path / "bundle"))
    (bundle.path / "engines").mkdir()
    assert OnnxRuntimeEngines(bundle, None, "asked for")["pixels"].run(IMAGE)["pixels"].shape[1] == 3


def on_cuda_code(bundle: Bundle, stage: str) -> OnnxRuntimeCudaEngine:
    """The engine of the CUDA provider, with the CPU as its device."""
    return OnnxRuntimeCudaEngine(bundle, stage, OnnxRuntimeDevice("cpu"))


@pytest.mark.parametrize("open_engine", [OnnxRuntimeEngine, on_cuda_code])
def test_a_graph_unlike_the_manifest_is_refused(
    open_engine: Callable[[Bundle, str], Engine], tiny_bundle: Path, tmp_path: Path
) -> None:
    folder = with_other_guidance(tiny_bundle, tmp_path / "bundle")
    bundle = Bundle.open(folder)
    with pytest.raises(InputError) as caught:
        open_engine(bundle, "image")
    line = str(caught.value)
    assert line.startswith(
        f"{folder / 'image.onnx'}: its outputs are embed tensor(float) (?, 128, 8, 8), guidance1 "
    )
    assert "guidance1 tensor(float) (?, 16, 16, 16)" in line
    assert (
        "but the manifest says embed tensor(float) (?, 128, 8, 8), guidance1 tensor(float) (?, 17, 16, 16)"
        in line
    )
    assert "\n" not in line
    with pytest.raises(InputError, match=r"decode1\.onnx: its inputs are .* but the manifest says"):
        open_engine(bundle, "decode1")
    assert open_engine(bundle, "scout").name == "scout"


def test_bfloat16_is_refused(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    stages = dict(bundle.manifest.stages)
    image = stages["image"]
    stages["image"] = Stage(
        image.file, tuple(replace(tensor, dtype="bfloat16") for tensor in image.inputs), image.outputs
    )
    half = Bundle(bundle.path, replace(bundle.manifest, stages=stages, precision="bf16"))
    message = "no bfloat16 kernels for the CPU; use the backend openvino .*, or export with --precision fp16"
    with pytest.raises(InputError, match=message):
        open_engines(half, "onnxruntime")
    monkeypatch.setattr(backends, "missing_package", lambda backend: backend)
    with pytest.raises(InputError, match=message):
        open_engines(half)
    with pytest.raises(InputError, match=message):
        OnnxRuntimeEngine(half, "image")
    assert OnnxRuntimeEngine(half, "pixels").name == "pixels"
