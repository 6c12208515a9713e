"""`sed-trt inspect --engine`, on a GPU and a TensorRT that stand in."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sed_trt.bundle import Bundle
from sed_trt.cli.main import main
from sed_trt.engines.build import target as build_target
from sed_trt.engines.build.build import build_engines
from sed_trt.engines.device.cuda import Gpu
from sed_trt.engines.trt import layers as trt_layers
from sed_trt.engines.trt.library import Library, load_library
from sed_trt.errors import InputError
from sed_trt.stages import STAGE_NAMES
from sed_trt.tests.fakes.device import FakeDevice
from sed_trt.tests.fakes.small_bundle import small_bundle
from sed_trt.tests.fakes.tensorrt import LAYERS, fake_tensorrt, install_tensorrt

A6000 = Gpu("NVIDIA RTX A6000", (8, 6), "13.0", 48 << 30)
L4 = Gpu("NVIDIA L4", (8, 9), "13.0", 24 << 30)


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    """A small one."""
    return small_bundle(tmp_path / "bundle")


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeDevice]:
    """An A6000 with both libraries, to build with and to run."""
    device = FakeDevice()
    use(monkeypatch, A6000)
    install_tensorrt(monkeypatch)
    rtx = fake_tensorrt("1.7.1", ["SM86", "SM89"])
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", rtx)
    runtime = fake_tensorrt(device=device)
    monkeypatch.setattr(trt_layers, "load_library", lambda backend: Library(backend, runtime, "1"))
    monkeypatch.setattr(trt_layers, "open_device", lambda: device)
    monkeypatch.setattr(trt_layers, "check_driver", lambda backend, gpu: None)
    yield device
    load_library.cache_clear()


def use(monkeypatch: pytest.MonkeyPatch, gpu: Gpu) -> None:
    for name in ("sed_trt.engines.device.cuda.find_gpu", "sed_trt.engines.build.target.find_gpu"):
        monkeypatch.setattr(name, lambda: gpu)


def facts(capsys: pytest.CaptureFixture[str], bundle: Bundle) -> dict[str, Any]:
    assert main(["inspect", str(bundle.path), "--engine", "--json"]) == 0
    content: dict[str, Any] = json.loads(capsys.readouterr().out)
    return content


@pytest.mark.parametrize("backend", ["tensorrt", "tensorrt-rtx"])
def test_layers_of_every_stage(
    backend: str, bundle: Bundle, device: FakeDevice, capsys: pytest.CaptureFixture[str]
) -> None:
    build_engines(bundle, backend)
    content = facts(capsys, bundle)
    assert content["engines"][0]["engine_layers"] == dict.fromkeys(STAGE_NAMES, LAYERS)
    assert content["warnings"] == []
    assert device.closed
    # Contexts take no memory of their own, and none is run.
    assert device.allocations == 0
    assert main(["inspect", str(bundle.path), "--engine"]) == 0
    assert f"scout, layers of the engine: {LAYERS}" in capsys.readouterr().out


def test_sets_for_something_else_are_skipped(
    bundle: Bundle,
    device: FakeDevice,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(
        "sed_trt.engines.build.build.optimise_graph",
        lambda graph, stage, output, report: output.write_bytes(graph.read_bytes()),
    )
    fits = build_engines(bundle, "tensorrt").engines.folder
    cpu = build_engines(bundle, "onnxruntime").engines.folder
    foreign = build_engines(bundle, "tensorrt-rtx", "sm89").engines.folder
    monkeypatch.setattr(build_target, "find_gpu", lambda: L4)
    other = build_engines(bundle, "tensorrt").engines.folder
    monkeypatch.setattr(build_target, "find_gpu", lambda: A6000)
    install_tensorrt(monkeypatch, "10.9.0")
    old = build_engines(bundle, "tensorrt").engines.folder
    install_tensorrt(monkeypatch)
    content = facts(capsys, bundle)
    inspected = {each["folder"] for each in content["engines"] if "engine_layers" in each}
    assert inspected == {str(fits)}
    reasons = {
        cpu: "engines of onnxruntime cannot be inspected",
        foreign: "were built for sm89, but this GPU, NVIDIA RTX A6000, is sm86; run `sed-trt build ",
        other: "were built for sm89 on NVIDIA L4, but this GPU, NVIDIA RTX A6000, is sm86; run `sed-trt ",
        old: "were built by tensorrt 10.9.0, but 11.4.0.106 is installed; run `sed-trt build ",
    }
    assert len(content["warnings"]) == len(reasons)
    for folder, reason in reasons.items():
        start = f"skipped by --engine: {folder}: {reason}"
        assert sum(line.startswith(start) for line in content["warnings"]) == 1


def test_set_that_is_refused_is_skipped(
    bundle: Bundle,
    device: FakeDevice,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    build_engines(bundle, "tensorrt")
    monkeypatch.setattr(trt_layers, "read_plan", lambda built, stage: b"refused: no such GPU")
    (line,) = facts(capsys, bundle)["warnings"]
    assert "text.engine: tensorrt cannot load it (refused: no such GPU); build it again with `" in line
    assert device.closed


def test_a_gpu_is_needed(
    bundle: Bundle,
    device: FakeDevice,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def no_gpu() -> Gpu:
        raise InputError("GPU: none is here")

    monkeypatch.setattr("sed_trt.engines.device.cuda.find_gpu", no_gpu)
    assert main(["inspect", str(bundle.path), "--engine"]) == 0
    assert "no engines are built" in capsys.readouterr().out
    build_engines(bundle, "tensorrt-rtx")
    assert main(["inspect", str(bundle.path), "--engine"]) == 2
    assert capsys.readouterr().err == "sed-trt: error: GPU: none is here\n"
