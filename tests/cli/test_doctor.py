"""`sed-trt doctor`."""

import importlib.metadata
import json
import shutil
import sys
from pathlib import Path
from types import ModuleType

import pytest

from sed_trt.cli import doctor as module
from sed_trt.cli.main import main
from sed_trt.engines.backends import BACKENDS
from sed_trt.engines.device.cuda import Gpu
from sed_trt.errors import InputError
from sed_trt.runtime import Segmenter


def versions(monkeypatch: pytest.MonkeyPatch, missing: set[str], present: dict[str, str]) -> None:
    """Pretend that some packages are absent and others there."""
    real = importlib.metadata.version

    def version(package: str) -> str:
        if package in missing:
            raise importlib.metadata.PackageNotFoundError(package)
        return present.get(package) or real(package)

    monkeypatch.setattr(module.importlib.metadata, "version", version)


def facts(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, object]:
    assert main(["doctor", "--json", *arguments]) == 0
    loaded: dict[str, object] = json.loads(capsys.readouterr().out)
    return loaded


def test_json_names_what_is_there(capsys: pytest.CaptureFixture[str]) -> None:
    found = facts(capsys)
    packages = found["packages"]
    assert isinstance(packages, dict)
    assert packages["base"]["numpy"] == importlib.metadata.version("numpy")
    assert "torch" in packages["export"]
    assert "CPUExecutionProvider" in str(found["onnxruntime_providers"])


def test_missing_packages_come_with_the_extra(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    versions(monkeypatch, {"timm", "onnxruntime-gpu"}, {})
    monkeypatch.setattr(module, "_gpus", lambda: [])
    assert facts(capsys)["advice"] == ["missing timm: in sed-trt's folder, pip install -e '.[export]'"]


def test_gpu_extras_are_advised_where_a_gpu_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    versions(monkeypatch, {"onnxruntime-gpu"}, {})
    monkeypatch.setattr(module, "_gpus", lambda: ["NVIDIA RTX A6000, 580.1, 49140 MiB, 8.6"])
    assert (
        "missing onnxruntime-gpu: in sed-trt's folder, pip uninstall -y onnxruntime "
        "&& pip install -e '.[gpu]'"
    ) in str(facts(capsys)["advice"])


def test_both_onnxruntimes_are_noticed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    versions(monkeypatch, set(), {"onnxruntime": "1.20", "onnxruntime-gpu": "1.20"})
    assert "overwrite each other" in str(facts(capsys)["advice"])
    versions(monkeypatch, {"onnxruntime"}, {"onnxruntime-gpu": "1.20"})
    advice = str(facts(capsys)["advice"])
    assert "overwrite each other" not in advice
    assert "missing onnxruntime:" not in advice


def test_backends_are_usable_or_not(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    missing: list[str] = []

    def load_libraries() -> None:
        if missing:
            raise InputError(missing[0])

    def no_gpu() -> Gpu:
        raise InputError("GPU: there is no NVIDIA driver; install it")

    monkeypatch.setattr(module, "_gpus", lambda: [])
    monkeypatch.setattr("sed_trt.engines.device.cuda.find_gpu", no_gpu)
    monkeypatch.setattr("sed_trt.engines.trt.library.load_library", lambda backend: None)
    monkeypatch.setattr("sed_trt.engines.openvino.library.processor", lambda: "some CPU")
    monkeypatch.setattr("sed_trt.engines.backends.cuda_offered", lambda: True)
    monkeypatch.setattr("sed_trt.engines.ort.cuda_libraries.load_cuda_libraries", load_libraries)
    without_gpu = {
        "auto": None,
        "tensorrt": "GPU: there is no NVIDIA driver; install it",
        "tensorrt-rtx": "GPU: there is no NVIDIA driver; install it",
        "onnxruntime-cuda": "nvidia-smi finds no GPU",
        "openvino": None,
        "onnxruntime": None,
    }
    assert facts(capsys)["backends"] == without_gpu
    missing.append("backend onnxruntime-cuda: libcudnn.so.9 is missing")
    assert facts(capsys)["backends"] == {**without_gpu, "onnxruntime-cuda": missing[0]}
    monkeypatch.setattr("sed_trt.engines.backends.cuda_offered", lambda: False)
    without_cuda = {**without_gpu, "onnxruntime-cuda": "this ONNX Runtime has no CUDA provider"}
    assert facts(capsys)["backends"] == without_cuda


def test_leftover_of_an_onnxruntime_is_noticed(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", ModuleType("onnxruntime"))
    monkeypatch.setitem(sys.modules, "openvino", None)
    found = facts(capsys)
    assert found["onnxruntime_providers"] == []
    backends = found["backends"]
    assert isinstance(backends, dict)
    assert "the package 'openvino' is not installed" in backends["openvino"]
    broken = ("auto", "onnxruntime-cuda", "onnxruntime")
    assert all("missing or broken" in backends[backend] for backend in broken)
    assert "pip uninstall -y onnxruntime onnxruntime-gpu" in str(found["advice"])
    for backend in broken:
        with pytest.raises(InputError, match="onnxruntime: is missing or broken"):
            Segmenter(tiny_bundle, backend)


def test_bundle_is_checked_file_by_file(
    tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = facts(capsys, str(tiny_bundle))["bundle"]
    assert isinstance(bundle, dict)
    assert bundle["preset"] == "sed-tiny"
    folder = shutil.copytree(tiny_bundle, tmp_path / "bundle")
    (folder / "scout.onnx").write_bytes(b"")
    assert main(["doctor", str(folder)]) == 2
    assert "scout.onnx: was altered" in capsys.readouterr().err


def test_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    shown = capsys.readouterr().out
    assert "onnxruntime providers" in shown
    assert all(f"backend {backend}" in shown for backend in BACKENDS)


@pytest.mark.parametrize(
    ("package", "shown"), [("cuda-bindings", "cuda-bindings"), (None, "neither pycuda nor")]
)
def test_the_package_that_reaches_gpus_is_named(
    package: str | None, shown: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "device_package", lambda: package)
    assert facts(capsys)["device_package"] == package
    assert main(["doctor"]) == 0
    assert shown in capsys.readouterr().out


def test_one_package_that_reaches_gpus_is_enough(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "_gpus", lambda: ["NVIDIA RTX A6000, 580.1, 49140 MiB, 8.6"])
    monkeypatch.setattr(
        module,
        "_packages",
        lambda: {"tensorrt": {"pycuda": None, "tensorrt": "11"}, "build": {"other": None}},
    )
    monkeypatch.setattr(module, "device_package", lambda: "cuda-bindings")
    assert facts(capsys)["advice"] == []
    monkeypatch.setattr(module, "device_package", lambda: None)
    assert facts(capsys)["advice"] == ["missing pycuda: in sed-trt's folder, pip install -e '.[tensorrt]'"]
