"""ONNX Runtime on the CPU: optimised graphs where they were built, and bfloat16."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sed_trt.bundle import Bundle, Stage
from sed_trt.engines.backends import open_engines
from sed_trt.engines.ort import cpu as module
from sed_trt.engines.ort.cpu import OnnxRuntimeEngine, OnnxRuntimeEngines
from sed_trt.engines.ort.session import library
from sed_trt.errors import InputError


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


def test_built_graphs_are_taken(bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    options = library().SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "pixels.onnx")
    library().InferenceSession(bundle.path / "pixels.onnx", options, providers=["CPUExecutionProvider"])

    def read_plan(built: object, stage: str) -> bytes:
        asked.append(stage)
        return (tmp_path / "pixels.onnx").read_bytes()

    monkeypatch.setattr(module, "find_built", lambda bundle, backend, gpu: "built")
    monkeypatch.setattr(module, "read_plan", read_plan)
    found = OnnxRuntimeEngines(bundle, None, "asked for")["pixels"].run(IMAGE)
    assert asked == ["pixels"]
    expected = OnnxRuntimeEngine(bundle, "pixels").run(IMAGE)
    assert np.allclose(found["pixels"], expected["pixels"], atol=1e-5)


def test_without_built_graphs_the_bundle_does(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    def none_built(*_arguments: Any) -> Any:
        raise InputError("none")

    monkeypatch.setattr(module, "find_built", none_built)
    assert OnnxRuntimeEngines(bundle, None, "asked for")["pixels"].run(IMAGE)["pixels"].shape[1] == 3


def test_bfloat16_is_refused_on_the_cpu(bundle: Bundle) -> None:
    stages = dict(bundle.manifest.stages)
    image = stages["image"]
    stages["image"] = Stage(
        image.file, tuple(replace(tensor, dtype="bfloat16") for tensor in image.inputs), image.outputs
    )
    half = Bundle(bundle.path, replace(bundle.manifest, stages=stages, precision="bf16"))
    message = "no bfloat16 kernels for the CPU; export with --precision fp16 or fp32"
    with pytest.raises(InputError, match=message):
        open_engines(half, "onnxruntime")
    with pytest.raises(InputError, match=message):
        open_engines(half)
    with pytest.raises(InputError, match=message):
        OnnxRuntimeEngine(half, "image")
    assert OnnxRuntimeEngine(half, "pixels").name == "pixels"
