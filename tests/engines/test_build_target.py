"""Backend and target of a build: what is taken where it is left open, and what is refused."""

from pathlib import Path

import pytest

from sed_trt.bundle import Bundle
from sed_trt.engines.build import target as module
from sed_trt.engines.build.target import cpu_target, default_backend, gpu_target
from sed_trt.engines.device.cuda import Gpu
from sed_trt.engines.profiles import Limits
from sed_trt.engines.targets import ANY_TARGET, BuildOptions
from sed_trt.engines.trt.library import Library
from sed_trt.errors import InputError
from sed_trt.tests.fakes.small_bundle import small_bundle
from sed_trt.tests.fakes.tensorrt import fake_tensorrt

A6000 = Gpu("NVIDIA RTX A6000", (8, 6), "13.0", 48 << 30)
H200 = Gpu("NVIDIA H200", (9, 0), "13.0", 141 << 30)
RTX = Library("tensorrt-rtx", fake_tensorrt("1.7", ["SM75", "SM80", "SM86"]), "1.7")
FULL = Library("tensorrt", fake_tensorrt("11.0"), "11.0")
NONE = BuildOptions()
FOR_OTHERS = BuildOptions(hardware_compatibility="ampere-plus")


def here(monkeypatch: pytest.MonkeyPatch, gpu: Gpu | None) -> None:
    """Put a GPU into this machine, or take it out."""

    def find() -> Gpu:
        if gpu is None:
            raise InputError("GPU: none is here")
        return gpu

    monkeypatch.setattr(module, "find_gpu", find)


@pytest.mark.parametrize(
    ("name", "target"), [(None, "portable"), ("portable", "portable"), ("A6000", "sm86"), ("t4", "sm75")]
)
def test_rtx_needs_no_gpu(name: str | None, target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    here(monkeypatch, None)
    assert gpu_target(RTX, name, NONE) == (target, None)


def test_rtx_for_this_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    here(monkeypatch, A6000)
    assert gpu_target(RTX, "current", NONE) == ("sm86", None)
    here(monkeypatch, H200)
    for name in ("current", "h100"):
        with pytest.raises(
            InputError, match=r"1\.7 knows sm75, sm80, sm86 only, and this GPU, NVIDIA H200, is sm90"
        ):
            gpu_target(RTX, name, NONE)
    # The GPU check tries it nevertheless.
    monkeypatch.setenv(ANY_TARGET, "1")
    assert gpu_target(RTX, "current", NONE) == ("sm90", H200)
    assert gpu_target(RTX, "h100", NONE) == ("sm90", H200)


@pytest.mark.parametrize("gpu", [None, A6000])
def test_rtx_for_a_gpu_it_cannot_name(gpu: Gpu | None, monkeypatch: pytest.MonkeyPatch) -> None:
    here(monkeypatch, gpu)
    with pytest.raises(
        InputError, match=r"cannot name sm90; it knows portable, sm75, sm80, sm86 and current"
    ):
        gpu_target(RTX, "h200", NONE)


def test_rtx_for_a_gpu_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    here(monkeypatch, None)
    with pytest.raises(InputError, match="none is here"):
        gpu_target(RTX, "current", NONE)


@pytest.mark.parametrize("name", [None, "current", "a6000", "rtx3090"])
def test_full_tensorrt_for_this_gpu(name: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    here(monkeypatch, A6000)
    assert gpu_target(FULL, name, NONE) == ("sm86", A6000)


@pytest.mark.parametrize("name", ["a100", "portable", "sm89"])
def test_full_tensorrt_for_another(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    here(monkeypatch, A6000)
    with pytest.raises(
        InputError, match=r"on the GPU it will run on, which here is NVIDIA RTX A6000 \(sm86\)"
    ):
        gpu_target(FULL, name, NONE)


@pytest.mark.parametrize("name", [None, "current", "a6000", "l4", "h100"])
def test_full_tensorrt_with_hardware_compatibility(name: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    here(monkeypatch, A6000)
    assert gpu_target(FULL, name, FOR_OTHERS) == ("ampere-plus", A6000)
    with pytest.raises(InputError, match="not sm75"):
        gpu_target(FULL, "t4", FOR_OTHERS)


def test_full_tensorrt_without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    here(monkeypatch, None)
    with pytest.raises(InputError, match="none is here"):
        gpu_target(FULL, None, NONE)


@pytest.mark.parametrize("library", [RTX, FULL], ids=lambda library: library.backend)
def test_no_gpu_engines_for_the_cpu(library: Library) -> None:
    with pytest.raises(InputError, match="use a backend of openvino, onnxruntime for that"):
        gpu_target(library, "cpu", NONE)
    with pytest.raises(InputError, match="target: 'a7000' is unknown"):
        gpu_target(library, "a7000", NONE)


def test_options_are_checked_first() -> None:
    with pytest.raises(InputError, match="option hardware compatibility: tensorrt-rtx has no such option"):
        gpu_target(RTX, "a7000", FOR_OTHERS)


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
def test_cpu_backends_are_for_the_cpu(backend: str) -> None:
    usual = Limits()
    assert cpu_target(backend, None, usual, NONE) == cpu_target(backend, "CPU", usual, NONE) == "cpu"
    with pytest.raises(InputError, match=f"{backend} builds for cpu only, not for 'a6000'"):
        cpu_target(backend, "a6000", usual, NONE)
    with pytest.raises(InputError, match=f"option workspace: {backend} has no such option"):
        cpu_target(backend, None, usual, BuildOptions(workspace=1))
    for limits, name in ((Limits(max_categories=9), "categories"), (Limits(max_side=99), "side")):
        with pytest.raises(InputError, match=f"option max {name}: {backend} has no such option; leave it"):
            cpu_target(backend, None, limits, NONE)


@pytest.mark.parametrize(
    ("installed", "gpu", "backend"),
    [
        (["tensorrt", "tensorrt-rtx"], A6000, "tensorrt"),
        (["tensorrt", "tensorrt-rtx"], None, "tensorrt-rtx"),
        (["tensorrt-rtx"], A6000, "tensorrt-rtx"),
        (["tensorrt"], None, "onnxruntime"),
        ([], A6000, "onnxruntime"),
        (["openvino"], None, "openvino"),
    ],
)
def test_default_backend(
    installed: list[str], gpu: Gpu | None, backend: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def compute(bundle: Bundle) -> None:
        if "openvino" not in installed:
            raise InputError("missing")

    def load(name: str) -> Library:
        if name not in installed:
            raise InputError("missing")
        return {"tensorrt": FULL, "tensorrt-rtx": RTX}[name]

    monkeypatch.setattr(module, "load_library", load)
    monkeypatch.setattr(module, "bundle_arithmetic", compute)
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    here(monkeypatch, gpu)
    assert default_backend(small_bundle(tmp_path / "bundle")) == backend
