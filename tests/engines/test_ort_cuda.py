"""The code for ONNX Runtime's CUDA provider, on the CPU: only the name of the device differs."""

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest

from sed_trt.bundle import Bundle
from sed_trt.engines.engine import DeviceArray
from sed_trt.engines.ort.cpu import OnnxRuntimeEngines
from sed_trt.engines.ort.cuda import (
    BFLOAT16,
    COPY_MODEL,
    OnnxRuntimeCudaEngine,
    OnnxRuntimeCudaEngines,
    OnnxRuntimeDevice,
    element_type,
)
from sed_trt.engines.ort.session import library
from sed_trt.errors import InputError
from sed_trt.runtime import Segmenter, TopK, Vocabulary
from sed_trt.runtime.pipeline import encode, finish, label_map, prepare
from sed_trt.stages import GPU_STAGES
from sed_trt.tests.fakes.manifest import without_stages
from sed_trt.tests.fakes.results import scores_of

NAMES = ["sky", "grass", "sand", "water", "road", "red car", "house", "tree", "boat", "person", "dog"]


class Unpadded(OnnxRuntimeCudaEngines):
    """A bucket for every size: nothing is padded, and results are those of the CPU to the last bit."""

    buckets = tuple(range(1, 100))


@pytest.fixture(scope="module")
def bundle(tiny_bundle: Path) -> Bundle:
    """sed-tiny."""
    return Bundle.open(tiny_bundle)


@pytest.fixture(scope="module")
def bound(bundle: Bundle) -> OnnxRuntimeCudaEngines:
    """Engines whose device is the CPU."""
    return Unpadded(bundle, None, "asked for", OnnxRuntimeDevice("cpu"))


@pytest.fixture(scope="module")
def vocabulary(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Vocabulary:
    """Some categories."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SED_TRT_CACHE", str(tmp_path_factory.mktemp("cache")))
        return Segmenter(tiny_bundle, "onnxruntime").vocabulary(NAMES)


def random_image(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (60, 70, 3), dtype=np.uint8)


def test_results_are_those_of_plain_arrays(
    bundle: Bundle, bound: OnnxRuntimeCudaEngines, vocabulary: Vocabulary
) -> None:
    plain = OnnxRuntimeEngines(bundle, None, "asked for")
    assert isinstance(vocabulary.on_device(bound), DeviceArray)
    images = [random_image(seed) for seed in range(3)]
    ours = encode(bound, [prepare(bound, each, None) for each in images])
    theirs = encode(plain, [prepare(plain, each, None) for each in images])
    for mine, other in zip(ours, theirs, strict=True):
        assert all(isinstance(value, DeviceArray) for value in mine.features.values())
        result = finish(mine, vocabulary, TopK(3))
        expected = finish(other, vocabulary, TopK(3))
        # They label by gathering, the CPU by matrix products.
        assert np.mean(result.labels == expected.labels) > 0.999
        assert np.abs(scores_of(result) - scores_of(expected)).max() < 1e-5
        assert result.kept == expected.kept


def test_padding_to_buckets_changes_no_label(bundle: Bundle, vocabulary: Vocabulary) -> None:
    plain = OnnxRuntimeEngines(bundle, None, "asked for")
    padded = OnnxRuntimeCudaEngines(bundle, None, "asked for", OnnxRuntimeDevice("cpu"))
    assert padded.buckets[:2] == (8, 16)
    results = []
    for engines in (plain, padded):
        (encoded,) = encode(engines, [prepare(engines, random_image(5), None)])
        results.append(finish(encoded, vocabulary, TopK(2)))
    assert results[0].kept == results[1].kept
    assert np.mean(results[0].labels == results[1].labels) > 0.999


def test_logits_of_the_rejection_points_are_not_fetched(
    bound: OnnxRuntimeCudaEngines, vocabulary: Vocabulary
) -> None:
    (encoded,) = encode(bound, [prepare(bound, random_image(0), None)])
    outputs = bound["scout"].run({"embed": encoded.features["embed"], "text": vocabulary.text})
    assert list(outputs) == ["votes0"]
    assert outputs["votes0"].dtype == np.int32


@pytest.mark.parametrize("dtype", ["float32", "float16", "uint8"])
def test_stack_copies_bytes_of_any_dtype(dtype: str) -> None:
    device = OnnxRuntimeDevice("cpu")
    arrays = [np.full((rows, 5), rows, dtype) for rows in (1, 3, 2)]
    stacked = device.stack([device.upload(array) for array in arrays])
    assert (stacked.dtype, stacked.shape) == (dtype, (6, 5))
    raw = stacked.owner.numpy()  # type: ignore[attr-defined]
    assert np.array_equal(raw.view(dtype).reshape(6, 5), np.concatenate(arrays))
    assert device.stack([stacked]) is stacked


def test_the_copy_model_is_one_identity_node() -> None:
    x, y = (onnx.helper.make_tensor_value_info(name, onnx.TensorProto.UINT8, ["bytes"]) for name in "xy")
    graph = onnx.helper.make_graph([onnx.helper.make_node("Identity", ["x"], ["y"])], "copy", [x], [y])
    model = onnx.ModelProto(ir_version=8, graph=graph, opset_import=[onnx.OperatorSetIdProto(version=13)])
    assert onnx.load_from_string(COPY_MODEL) == model


def test_element_types() -> None:
    assert element_type("bfloat16") == BFLOAT16
    assert element_type("float16") is np.float16
    value = library().OrtValue.ortvalue_from_shape_and_type([2], BFLOAT16, "cpu", 0)
    assert value.data_type() == "tensor(bfloat16)"


@pytest.mark.parametrize(
    ("message", "asked"),
    [
        ("BFCArena: Failed to allocate memory for requested buffer of size 3145728", "3.0 MiB asked for"),
        ("Available memory of 12 is smaller than requested bytes of 2097152", "2.0 MiB asked for"),
        ("CUDA failure 2: out of memory", "more memory asked for"),
    ],
)
def test_out_of_memory(
    message: str, asked: str, bound: OnnxRuntimeCudaEngines, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine: Any = OnnxRuntimeCudaEngine(bound._bundle, "pixels", bound._device)
    real = engine._session

    def fail(binding: object) -> None:
        raise RuntimeError(message)

    session = SimpleNamespace(io_binding=real.io_binding, run_with_iobinding=fail)
    monkeypatch.setattr(engine, "_session", session)
    with pytest.raises(InputError, match=re.escape(f"stage pixels: the GPU's memory is too small ({asked}")):
        engine.run({"image": random_image(0)[None]})


def test_other_failures_stay_what_they_are(bound: OnnxRuntimeCudaEngines) -> None:
    with pytest.raises(Exception, match=r"Got invalid dimensions|invalid"):
        bound["pixels"].run({"image": np.zeros((1, 4, 4, 5), np.uint8)})


def test_cuda_that_does_not_start(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """ONNX Runtime falls back to the CPU with no more than a log line."""
    real = library()
    asked: list[Any] = []

    def session(model: object, options: object, providers: list[Any]) -> Any:
        asked.extend(providers)
        return real.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    fake = SimpleNamespace(
        SessionOptions=real.SessionOptions, InferenceSession=session, __version__=real.__version__
    )
    monkeypatch.setattr("sed_trt.engines.ort.session.library", lambda: fake)
    with pytest.raises(InputError, match="onnxruntime-cuda: CUDA did not start"):
        OnnxRuntimeCudaEngine(bundle, "label", OnnxRuntimeDevice())
    (provider, options), _ = asked
    assert provider == "CUDAExecutionProvider"
    # Float32 is float32, by the name that the CUDA provider's documentation gives to it.
    assert options["use_tf32"] == "0"


def test_labels_come_from_the_stage_for_gpus(bound: OnnxRuntimeCudaEngines) -> None:
    assert bound.label_stage == "label_gpu"
    logits = np.random.default_rng(0).normal(size=(5, 64, 64)).astype(np.float32)
    kept = np.array([1, 255, 256, 300, 60_000])
    plain = OnnxRuntimeEngines(bound._bundle, None, "asked for")
    labels, scores = label_map(bound, bound.to_device(logits), kept, 90, 1100)
    expected, expected_scores = label_map(plain, logits, kept, 90, 1100)
    assert np.mean(labels == expected) > 0.9999
    assert scores is not None and expected_scores is not None
    assert np.abs(scores - expected_scores).max() < 1e-6


def test_a_part_of_an_array_comes_to_the_host(bound: OnnxRuntimeCudaEngines) -> None:
    array = np.arange(12, dtype=np.float32).reshape(4, 3)
    assert np.array_equal(bound.to_host(bound.to_device(array)[1:3]), array[1:3])
    assert bound.to_host(array) is array


def test_a_bundle_of_an_earlier_version_is_labelled_as_on_a_cpu(
    bundle: Bundle, vocabulary: Vocabulary, tmp_path: Path
) -> None:
    older = without_stages(bundle.path, tmp_path / "older", GPU_STAGES)
    engines = OnnxRuntimeCudaEngines(Bundle.open(older), None, "asked for", OnnxRuntimeDevice("cpu"))
    assert engines.label_stage == "label"
    (encoded,) = encode(engines, [prepare(engines, random_image(1), None)])
    result = finish(encoded, vocabulary, TopK(2))
    plain = OnnxRuntimeEngines(bundle, None, "asked for")
    (encoded,) = encode(plain, [prepare(plain, random_image(1), None)])
    assert np.mean(finish(encoded, vocabulary, TopK(2)).labels == result.labels) > 0.999
