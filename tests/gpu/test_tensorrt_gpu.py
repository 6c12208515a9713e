"""The GPU backends on a real GPU, against ONNX Runtime on the CPU; skipped where there is none."""

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sed_trt.cli.main import main
from sed_trt.engines.backends import unavailable_reason
from sed_trt.engines.device.protocol import DeviceMemoryError
from sed_trt.errors import InputError
from sed_trt.runtime import Budget, KeepAll, Segmenter, TopK
from sed_trt.tests.fakes.results import scores_of

BACKENDS = ("tensorrt", "tensorrt-rtx", "onnxruntime-cuda")
NAMES = ["sky", "grass", "sand", "water", "brick wall", "road", "red car", "house", "tree", "boat", "dog"]


def missing(backend: str) -> str | None:
    """Why a backend cannot be run on a GPU here."""
    if backend == "onnxruntime-cuda" and shutil.which("nvidia-smi") is None:
        return "no NVIDIA driver"
    return unavailable_reason(backend)


@pytest.fixture(scope="module", params=BACKENDS)
def segmenter(request: pytest.FixtureRequest, tiny_bundle: Path) -> Segmenter:
    """sed-tiny on each backend, built for this GPU."""
    backend: str = request.param
    if reason := missing(backend):
        pytest.skip(f"no {backend} on a GPU here: {reason}")
    if backend != "onnxruntime-cuda":
        assert main(["build", str(tiny_bundle), "--backend", backend, "--target", "current"]) == 0
    return Segmenter(tiny_bundle, backend)


@pytest.fixture(scope="module")
def reference(tiny_bundle: Path) -> Segmenter:
    """sed-tiny on the CPU."""
    return Segmenter(tiny_bundle, "onnxruntime")


def random_image(seed: int) -> np.ndarray:
    """Noise on a gradient."""
    ramp = np.linspace(0, 200, 130)[None, :, None] * np.ones((90, 1, 3))
    return (ramp + np.random.default_rng(seed).integers(0, 50, (90, 130, 3))).astype(np.uint8)


@pytest.mark.parametrize("rejection", [KeepAll(), TopK(2), Budget(5)])
def test_labels_agree_with_the_cpu(rejection: Any, segmenter: Segmenter, reference: Segmenter) -> None:
    for seed in range(3):
        found, expected = (each(random_image(seed), NAMES, rejection) for each in (segmenter, reference))
        assert np.mean(found.labels == expected.labels) > 0.99
        assert np.allclose(scores_of(found), scores_of(expected), atol=0.02)


def test_many_threads_give_what_one_gives(segmenter: Segmenter) -> None:
    vocabulary = segmenter.vocabulary(NAMES)
    segmenter.warmup(vocabulary)
    expected = [segmenter(random_image(seed), vocabulary).labels for seed in range(4)]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda seed: segmenter(random_image(seed % 4), vocabulary).labels, range(40)))
    assert all(np.array_equal(labels, expected[seed % 4]) for seed, labels in enumerate(found))


def test_a_stream_agrees_with_single_calls(segmenter: Segmenter) -> None:
    vocabulary = segmenter.vocabulary(NAMES)
    images = [random_image(seed) for seed in range(5)]
    for item, single in zip(segmenter.stream(images, vocabulary, batch=2), images, strict=True):
        assert item.result is not None
        assert np.mean(item.result.labels == segmenter(single, vocabulary).labels) > 0.99


def test_more_memory_than_the_gpu_has() -> None:
    if reason := missing("tensorrt") and missing("tensorrt-rtx"):
        pytest.skip(f"no TensorRT on a GPU here: {reason}")
    from sed_trt.engines.device.cuda import open_device
    from sed_trt.engines.device.session import DeviceSession

    device = open_device()
    with device.active(), pytest.raises(DeviceMemoryError):
        device.allocate(2**50)
    session = DeviceSession(device)
    with pytest.raises(InputError, match="the GPU's memory is too small"), session.work("test") as work:
        work.empty("float32", (2**48,))
    session.close()
