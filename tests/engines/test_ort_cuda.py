"""The code for ONNX Runtime's CUDA provider, on the CPU: only the name of the device differs."""

import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest

from sed_trt.bundle import Bundle
from sed_trt.engines.engine import DeviceArray, fetch
from sed_trt.engines.ort import cuda_device, cuda_graphs
from sed_trt.engines.ort import session as session_module
from sed_trt.engines.ort.cpu import OnnxRuntimeEngines
from sed_trt.engines.ort.cuda import OnnxRuntimeCudaEngines
from sed_trt.engines.ort.cuda_device import BFLOAT16, CONV_MODEL, OnnxRuntimeDevice, element_type
from sed_trt.engines.ort.host_device import HostDevice
from sed_trt.engines.ort.session import library
from sed_trt.errors import InputError
from sed_trt.runtime import Budget, KeepAll, Segmenter, TopK, Vocabulary
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
        assert np.array_equal(result.labels, expected.labels)
        # The stage that labels on a GPU rounds otherwise.
        assert np.abs(scores_of(result) - scores_of(expected)).max() < 1e-6
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
def test_stack_copies_bytes_of_any_dtype(dtype: str, bound: OnnxRuntimeCudaEngines) -> None:
    arrays = [np.full((rows, 5), rows, dtype) for rows in (1, 3, 2)]
    stacked = bound.stack(arrays)
    assert (stacked.dtype, stacked.shape) == (dtype, (6, 5))
    assert np.array_equal(bound.to_host(stacked), np.concatenate(arrays))
    assert bound.stack([stacked]) is stacked


def test_a_batch_is_stacked_without_a_copy(bundle: Bundle) -> None:
    engines = Unpadded(bundle, None, "asked for", OnnxRuntimeDevice("cpu"))
    expected = [
        OnnxRuntimeEngines(bundle, None, "asked for")["pixels"].run({"image": random_image(seed)[None]})[
            "pixels"
        ]
        for seed in range(7)
    ]
    copies: list[int] = []
    device = engines._device.memory.device
    copy = device.copy

    def counted(target: int, source: int, size: int) -> None:
        copies.append(size)
        copy(target, source, size)

    device.copy = counted  # type: ignore[method-assign]

    def batch(*seeds: int) -> np.ndarray:
        images = [engines["pixels"].run({"image": random_image(seed)[None]})["pixels"] for seed in seeds]
        return engines.to_host(engines.stack(images))

    # How long a batch is shows with the first one.
    for seeds in ((0, 1, 2), (3, 4, 5), (0, 6, 2)):
        assert np.array_equal(batch(*seeds), np.concatenate([expected[seed] for seed in seeds]))
        assert len(copies) == 3
    # A single image moves the next batch over the end of a buffer; the one after it is whole again.
    single = engines["pixels"].run({"image": random_image(1)[None]})["pixels"]
    assert np.array_equal(batch(3, 4, 5), np.concatenate(expected[3:6]))
    assert len(copies) == 6
    assert np.array_equal(batch(2, 1, 0), np.concatenate(expected[2::-1]))
    assert len(copies) == 6
    assert np.array_equal(engines.to_host(single), expected[1])


def test_labels_between_the_images_of_a_batch_break_no_batch(bundle: Bundle) -> None:
    engines = OnnxRuntimeCudaEngines(bundle, None, "asked for", OnnxRuntimeDevice("cpu"))

    def prepared(seed: int) -> Any:
        return engines["pixels"].run({"image": random_image(seed)[None]})["pixels"]

    engines.stack([prepared(seed) for seed in range(3)])
    first = [prepared(0), prepared(1)]
    values = [engines.to_device(np.arange(size, dtype=np.float32)) for size in (5, 3)]
    assert [list(array) for array in fetch(engines, values)] == [list(range(5)), list(range(3))]
    stacked = engines.stack([*first, prepared(2)])
    # The same memory: nothing was copied.
    assert stacked.pointer == first[0].pointer


def test_each_bucket_has_a_session_of_its_own(bundle: Bundle, vocabulary: Vocabulary) -> None:
    engines = OnnxRuntimeCudaEngines(bundle, None, "asked for", OnnxRuntimeDevice("cpu"))
    (encoded,) = encode(engines, [prepare(engines, random_image(0), None)])

    for rejection in (KeepAll(), Budget(2), KeepAll()):
        finish(encoded, vocabulary, rejection)
    sessions = {
        stage: set(engines[stage]._sessions) for stage in ("scout", "decode1", "decode3", "label_gpu")
    }
    # 11 categories are no bucket: the scout takes them as they are, the decoder stages in the next bucket.
    assert sessions["scout"] == {None}
    assert sessions["decode1"] == sessions["decode3"] == {8, 16}
    assert sessions["label_gpu"] == {None}
    opened = [*engines["decode1"]._sessions.values(), *engines["decode3"]._sessions.values()]
    assert len(set(map(id, opened))) == len(opened)


def test_many_threads_give_what_one_gives(bundle: Bundle, vocabulary: Vocabulary) -> None:
    engines = OnnxRuntimeCudaEngines(bundle, 1, "asked for", OnnxRuntimeDevice("cpu"))

    def labels(seed: int) -> np.ndarray:
        (encoded,) = encode(engines, [prepare(engines, random_image(seed), None)])
        return finish(encoded, vocabulary, TopK(1 + seed)).labels

    expected = [labels(seed) for seed in range(3)]
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(labels, [0, 1, 2] * 4))
    assert all(np.array_equal(each, expected[number % 3]) for number, each in enumerate(found))


def test_host_outputs_of_a_stage_come_in_one_copy(bundle: Bundle, vocabulary: Vocabulary) -> None:
    engines = OnnxRuntimeCudaEngines(bundle, None, "asked for", OnnxRuntimeDevice("cpu"))
    device = engines._device.memory.device
    downloads: list[int] = []
    download = device.download

    def counted(target: np.ndarray, pointer: int) -> None:
        downloads.append(target.nbytes)
        download(target, pointer)

    device.download = counted  # type: ignore[method-assign]
    (encoded,) = encode(engines, [prepare(engines, random_image(0), None)])
    assert downloads == []
    finish(encoded, vocabulary, TopK(3))
    # Three tables of votes, then labels and scores at once.
    assert len(downloads) == 4


def test_cuda_graphs_change_no_result(bundle: Bundle, vocabulary: Vocabulary) -> None:
    """On the CPU nothing is recorded, but all goes through the fixed buffers."""
    plain, fixed = (
        OnnxRuntimeCudaEngines(bundle, None, "asked for", OnnxRuntimeDevice("cpu"), graphs)
        for graphs in (False, True)
    )
    for seed in (0, 1, 0):
        ours, theirs = (
            finish(encode(each, [prepare(each, random_image(seed), None)])[0], vocabulary, TopK(3))
            for each in (fixed, plain)
        )
        assert np.array_equal(ours.labels, theirs.labels)
        assert np.array_equal(scores_of(ours), scores_of(theirs))
    for stage in ("image", "scout", "decode1", "decode3"):
        graphs: Any = fixed[stage]._graphs
        assert graphs._recordings, stage
    assert fixed["label_gpu"]._graphs is None
    assert plain["image"]._graphs is None


def test_beyond_a_number_of_shapes_nothing_is_recorded(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cuda_graphs, "MAX_GRAPHS", 1)
    engines = OnnxRuntimeCudaEngines(bundle, None, "asked for", OnnxRuntimeDevice("cpu"), True)
    plain = OnnxRuntimeCudaEngines(bundle, None, "asked for", OnnxRuntimeDevice("cpu"))
    for batch in (1, 2, 1):
        images = [random_image(seed) for seed in range(batch)]
        ours, theirs = (
            encode(each, [prepare(each, image, None) for image in images]) for each in (engines, plain)
        )
        for mine, other in zip(ours, theirs, strict=True):
            found = engines.to_host(mine.features["embed"])
            assert np.array_equal(found, plain.to_host(other.features["embed"]))
    graphs: Any = engines["image"]._graphs
    assert len(graphs._recordings) == 1


def test_the_probe_is_one_convolution() -> None:
    x, w = (onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, 1, 3, 3]) for name in "xw")
    y = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1, 1, 1, 1])
    node = onnx.helper.make_node("Conv", ["x", "w"], ["y"])
    graph = onnx.helper.make_graph([node], "probe", [x, w], [y])
    model = onnx.ModelProto(ir_version=8, graph=graph, opset_import=[onnx.OperatorSetIdProto(version=13)])
    assert onnx.load_from_string(CONV_MODEL) == model


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
    def fail(session: object, binding: object) -> None:
        raise RuntimeError(message)

    monkeypatch.setattr(bound._device, "run", fail)
    with pytest.raises(InputError, match=re.escape(f"stage pixels: the GPU's memory is too small ({asked}")):
        bound["pixels"].run({"image": random_image(0)[None]})


def test_other_failures_stay_what_they_are(bound: OnnxRuntimeCudaEngines) -> None:
    with pytest.raises(Exception, match=r"Got invalid dimensions|invalid"):
        bound["pixels"].run({"image": np.zeros((1, 4, 4, 5), np.uint8)})


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """An ONNX Runtime with CUDA whose sessions run on the CPU; gets the providers that are asked for."""
    real = library()
    asked: list[Any] = []

    def session(model: object, options: object, providers: list[Any], **others: Any) -> Any:
        asked.extend(providers)
        return real.InferenceSession(model, options, providers=["CPUExecutionProvider"], **others)

    fake = SimpleNamespace(
        SessionOptions=real.SessionOptions, InferenceSession=session, __version__=real.__version__
    )
    monkeypatch.setattr(session_module, "library", lambda: fake)
    monkeypatch.setattr(session_module, "_register_arena", lambda: None)
    monkeypatch.setattr(cuda_device, "register_cuda_arena", lambda: None)
    monkeypatch.setattr(cuda_device, "load_cuda_libraries", lambda: None)
    monkeypatch.setattr(cuda_device, "CudaRuntimeDevice", lambda library: HostDevice())
    return asked


def test_cuda_that_does_not_start(started: list[Any]) -> None:
    """ONNX Runtime falls back to the CPU with no more than a log line."""
    with pytest.raises(InputError, match="onnxruntime-cuda: CUDA did not start"):
        OnnxRuntimeDevice()
    (provider, options), _ = started
    assert provider == "CUDAExecutionProvider"
    # Float32 is float32, by the name that the CUDA provider's documentation gives to it.
    assert options["use_tf32"] == "0"
    assert options["user_compute_stream"] == "0"


def test_a_convolution_that_does_not_run(started: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Without cuDNN everything starts but the first convolution, and `auto` takes another backend."""

    def fail(outputs: object, inputs: object) -> None:
        raise RuntimeError("cuDNN is not available\nstack trace")

    def open_session(self: object, *arguments: object) -> Any:
        assert arguments[0] == CONV_MODEL
        return SimpleNamespace(run=fail)

    monkeypatch.setattr(OnnxRuntimeDevice, "open_session", open_session)
    message = (
        r"a convolution does not run on the GPU \(cuDNN is not available\), expected cuDNN 9; in sed-trt"
    )
    with pytest.raises(InputError, match=message):
        OnnxRuntimeDevice()


def test_all_engines_share_one_gpu(started: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Their sessions share memory, which only the order of one stream protects."""
    monkeypatch.setattr(OnnxRuntimeDevice, "_try_convolution", lambda self: None)
    first = cuda_device.open_gpu()
    assert cuda_device.open_gpu() is first
    closed: list[bool] = []
    monkeypatch.setattr(first.memory.device, "close", lambda: closed.append(True), raising=False)
    del first
    assert closed == [True]


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
