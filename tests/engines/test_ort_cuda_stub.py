"""The real onnxruntime-gpu over CUDA libraries that only count: where nodes run, and what a run costs."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from sed_trt.stages import BY_NAME, gpu_stages
from sed_trt.tests.fakes.cuda_stub import build_stub, run_with_stub
from sed_trt.tests.fakes.cuda_stub.observe import CATEGORIES, IMAGE_SHAPE

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="the wheel and the stub are for Linux"),
]
# Of CUDA 13; 255 MB.
PACKAGE = "onnxruntime-gpu==1.31.1"
# What a GPU runs of a whole bundle.
GPU_STAGE_NAMES = gpu_stages(BY_NAME)
# Operators on shapes, which ONNX Runtime keeps on the CPU, where the shapes are.
SHAPE_OPERATORS = {"Squeeze", "Concat", "Div"}
# `text`, which runs once per vocabulary, looks for the end of each sentence: CUDA has no ArgMax of int64.
CPU_OPERATORS = dict.fromkeys(GPU_STAGE_NAMES, SHAPE_OPERATORS) | {
    "text": {"ArgMax", "Concat", "Slice", "Squeeze"}
}
OBSERVE = "sed_trt.tests.fakes.cuda_stub.observe"
ALIGNMENT = 256


@pytest.fixture(scope="module")
def package(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with onnxruntime-gpu, which is kept from run to run."""
    cache = getattr(request.config, "cache", None)
    parent = cache.mkdir("onnxruntime-gpu") if cache else tmp_path_factory.mktemp("onnxruntime-gpu")
    folder = parent / PACKAGE
    with FileLock(f"{folder}.lock"):
        if not (folder / "complete").exists():
            command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--upgrade"]
            done = subprocess.run(
                [*command, "--only-binary", ":all:", "--target", folder, PACKAGE],
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode:
                pytest.skip(f"pip cannot get {PACKAGE}: {done.stderr.strip().splitlines()[-1:]}")
            (folder / "complete").touch()
    return folder


@pytest.fixture(scope="module")
def stub(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the stub."""
    provider = package / "onnxruntime" / "capi" / "libonnxruntime_providers_cuda.so"
    return build_stub(tmp_path_factory.mktemp("stub"), provider)


@pytest.fixture(scope="module", params=["fp32", "fp16", "bf16"])
def bundle(request: pytest.FixtureRequest) -> Path:
    """sed-tiny in each precision."""
    name = "tiny_bundle" if request.param == "fp32" else f"tiny_bundle_{request.param}"
    path: Path = request.getfixturevalue(name)
    return path


@pytest.fixture(scope="module")
def report(bundle: Path, stub: Path, package: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What `observe` says of a bundle."""
    folder = tmp_path_factory.mktemp("profiles")
    return json.loads(run_with_stub(stub, "-m", OBSERVE, bundle, folder, before=package))


def test_all_but_shapes_is_computed_on_the_gpu(report: Any) -> None:
    assert set(GPU_STAGE_NAMES) <= set(report["nodes"])
    for stage in GPU_STAGE_NAMES:
        providers = report["nodes"][stage]
        assert sum(providers["CUDAExecutionProvider"].values()) > 0, stage
        assert set(providers.get("CPUExecutionProvider", {})) <= CPU_OPERATORS[stage], stage


def test_no_value_is_moved_between_host_and_gpu_within_a_stage(report: Any) -> None:
    for stage in GPU_STAGE_NAMES:
        operators = {name for place in report["nodes"][stage].values() for name in place}
        assert stage == "text" or not {name for name in operators if "Memcpy" in name}, stage


def padded_bytes(*sizes: int) -> int:
    """The bytes of outputs that the host reads, side by side at aligned addresses."""
    return sum(-(-size // ALIGNMENT) * ALIGNMENT for size in sizes)


def test_waits_and_bytes_of_each_stage(report: Any) -> None:
    stages = report["stages"]
    waits = {stage: stages[stage].get("waits", 0) for stage in GPU_STAGE_NAMES if stage != "text"}
    assert waits == {stage: int(stage in ("scout", "decode1", "decode2")) for stage in waits}
    height, width, _ = IMAGE_SHAPE
    # The last image kept two categories, in a bucket of eight.
    downloads = {
        "scout": padded_bytes(8 * CATEGORIES * 4),
        "decode1": padded_bytes(8 * 8 * 4),
        "decode2": padded_bytes(8 * 8 * 4),
    }
    for stage in waits:
        assert stages[stage].get("device_to_host_bytes", 0) == downloads.get(stage, 0), stage
        limit = height * width * 3 if stage == "pixels" else 2048
        assert stages[stage].get("host_to_device_bytes", 0) <= limit, stage


def test_four_waits_an_image_and_nothing_grows(report: Any) -> None:
    for image in report["images"][2:]:
        assert image["waits"] == 4
        # Neither an algorithm is chosen anew, though the bucket changes, nor a handle made.
        assert not {"plans", "cublas_handles", "cudnn_handles"} & set(image)
    for image in report["images"][4:]:
        assert not {"device_bytes", "pinned_bytes"} & set(image)


def test_a_batch_costs_no_wait_and_no_copy(report: Any) -> None:
    first, *others = report["batches"]
    assert first["device_to_device"] == 3
    for batch in others:
        assert "device_to_device" not in batch
        assert "waits" not in batch


def test_cuda_graphs_launch_a_stage_at_once(
    tiny_bundle: Path, stub: Path, package: Path, tmp_path: Path
) -> None:
    report = json.loads(run_with_stub(stub, "-m", OBSERVE, tiny_bundle, tmp_path, "--graphs", before=package))
    for stage in ("image", "scout", "decode1", "decode2", "decode3"):
        assert report["stages"][stage]["graph_launches"] == 1
        assert "launches" not in report["stages"][stage]
    for image in report["images"][2:]:
        assert image["graph_launches"] == 5
        assert image["waits"] == 4


OPEN = """
import sys
from sed_trt.bundle import Bundle
from sed_trt.engines.backends import open_engines
engines = open_engines(Bundle.open(sys.argv[1]), "auto")
print(engines.backend, engines.reason, sep="; ")
"""


def test_auto_takes_the_gpu(tiny_bundle: Path, stub: Path, package: Path) -> None:
    line = run_with_stub(stub, "-c", OPEN, tiny_bundle, before=package)
    assert line.startswith("onnxruntime-cuda; ")


@pytest.mark.parametrize(
    ("variable", "value", "reason"),
    [
        ("CUDNN_STUB_BROKEN", "1", "onnxruntime-cuda: a convolution does not run on the GPU"),
        (
            "CUDA_STUB_GPUS",
            "0",
            "onnxruntime-cuda: CUDA did not start (cudaSetDevice: no CUDA-capable device",
        ),
    ],
)
def test_auto_falls_back_with_the_reason(
    variable: str, value: str, reason: str, tiny_bundle: Path, stub: Path, package: Path
) -> None:
    line = run_with_stub(stub, "-c", OPEN, tiny_bundle, before=package, variables={variable: value})
    assert line.startswith("openvino; ")
    assert reason in line
