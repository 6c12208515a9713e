"""Stages that `sed-trt build --backend openvino` compiled: found again, or refused where they do not fit."""

import errno
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sed_trt.bundle import Bundle
from sed_trt.cli.main import main
from sed_trt.engines import store
from sed_trt.engines.build.build import build_engines
from sed_trt.engines.openvino import engines as module
from sed_trt.engines.openvino import plans as plans_module
from sed_trt.engines.openvino.engines import OpenVinoEngines
from sed_trt.engines.openvino.library import core, self_test
from sed_trt.engines.openvino.models import import_stage
from sed_trt.engines.openvino.precision import Arithmetic
from sed_trt.errors import InputError

pytest.importorskip("openvino")

IMAGE = {"image": np.random.default_rng(0).integers(0, 256, (1, 50, 40, 3), dtype=np.uint8)}
COMMAND = "run `sed-trt build {} --backend openvino`"


@pytest.fixture(scope="module")
def built_once(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """sed-tiny with compiled stages; not to be changed."""
    folder = tmp_path_factory.mktemp("built") / "bundle"
    shutil.copytree(tiny_bundle, folder)
    build_engines(Bundle.open(folder), "openvino")
    return folder


@pytest.fixture
def bundle(built_once: Path, tmp_path: Path) -> Bundle:
    """A copy of it."""
    return Bundle.open(shutil.copytree(built_once, tmp_path / "bundle"))


def compiled_graphs(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The stages that are compiled from their graphs from now on."""
    names: list[str] = []
    compile_stage = module.compile_stage

    def compile_and_note(bundle: Bundle, stage: str, chosen: Arithmetic, *options: Any) -> Any:
        names.append(stage)
        return compile_stage(bundle, stage, chosen, *options)

    monkeypatch.setattr(module, "compile_stage", compile_and_note)
    return names


def set_of(bundle: Bundle) -> Path:
    """The folder of the bundle's only set."""
    (folder,) = (bundle.path / "engines").glob("openvino-*")
    return folder


def test_stages_open_from_their_plans(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    graphs = compiled_graphs(monkeypatch)
    engines = OpenVinoEngines(bundle, 1, "asked for")
    found = engines["pixels"].run(IMAGE)["pixels"]
    assert (graphs, engines.reason) == ([], "asked for")
    shutil.rmtree(bundle.path / "engines")
    assert np.array_equal(OpenVinoEngines(bundle, 1, "asked for")["pixels"].run(IMAGE)["pixels"], found)
    assert graphs == ["label", "pixels"]


def test_a_plan_computes_in_the_precision_of_its_bundle(bundle: Bundle) -> None:
    """An imported model would compute in BF16 on AMX unless it is told not to."""
    (built,), _ = store.list_built(bundle)
    plan = store.read_plan(built, "image")
    compiled = import_stage(plan, "image", Arithmetic("f32", "float32"), 1)
    assert compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name() == "f32"
    assert compiled.get_property("INFERENCE_NUM_THREADS") == 1
    if self_test("bf16").on_amx:
        asked_nothing = core().import_model(plan, "CPU", {})
        assert asked_nothing.get_property("INFERENCE_PRECISION_HINT").get_type_name() == "bf16"


def test_build_finds_what_it_built(
    bundle: Bundle, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["build", str(bundle.path), "--backend", "openvino"]) == 0
    assert "already built by openvino" in capsys.readouterr().out
    assert main(["inspect", str(bundle.path), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["warnings"] == []
    assert shown["engines"][0]["stages"]["image"]["precisions"]["CONVOLUTION"]["FLOAT"] > 0
    # What another processor would be built is a set of its own.
    monkeypatch.setattr("sed_trt.engines.build.build.compiled_for", lambda chosen: "another processor")
    assert not build_engines(bundle, "openvino").already_built
    assert len(list((bundle.path / "engines").glob("openvino-*"))) == 2
    assert OpenVinoEngines(bundle, None, "asked for").reason == "asked for"


@pytest.mark.parametrize("damage", ["altered", "missing"])
def test_a_damaged_plan_is_not_used(damage: str, bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    graphs = compiled_graphs(monkeypatch)
    plan = set_of(bundle) / "pixels.blob"
    if damage == "altered":
        content = bytearray(plan.read_bytes())
        content[len(content) // 2] ^= 1
        plan.write_bytes(content)
    else:
        plan.unlink()
    engines = OpenVinoEngines(bundle, None, "asked for")
    assert engines.reason == "asked for"
    assert engines["pixels"].run(IMAGE)["pixels"].shape[1] == 3
    assert graphs == ["pixels"]
    assert f"asked for; compiled from the bundle's graphs: {plan}: " in engines.reason
    assert f"`sed-trt build {bundle.path} --backend openvino --force`" in engines.reason
    assert "\n" not in engines.reason


def test_a_plan_that_openvino_refuses_is_not_used(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    graphs = compiled_graphs(monkeypatch)
    monkeypatch.setattr(plans_module, "read_plan", lambda built, stage: b"no plan" * 99)
    engines = OpenVinoEngines(bundle, None, "asked for")
    assert graphs == ["label"]
    assert "label.blob: OpenVINO" in engines.reason
    assert "refuses the plan of label" in engines.reason


def rewritten(bundle: Bundle, **fields: str) -> None:
    """Change fields of the set's record."""
    file = set_of(bundle) / "build.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"host": "another processor"}, "its engines for openvino are for another processor, not for "),
        ({"version": "2025.1.0"}, "its engines were built by openvino 2025.1.0, but "),
        ({"built": ""}, None),
    ],
)
def test_a_stale_set_is_not_used(
    fields: dict[str, str], problem: str | None, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    graphs = compiled_graphs(monkeypatch)
    rewritten(bundle, **fields)
    engines = OpenVinoEngines(bundle, None, "asked for")
    assert graphs == ([] if problem is None else ["label"])
    if problem is not None:
        assert f"asked for; compiled from the bundle's graphs: {bundle.path}: {problem}" in engines.reason
        assert engines.reason.endswith(COMMAND.format(bundle.path))


def test_plans_of_other_graphs_are_not_used(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    graphs = compiled_graphs(monkeypatch)
    files = dict(bundle.manifest.files)
    files["scout.onnx"] = replace(files["scout.onnx"], sha256="0" * 64)
    changed = Bundle(bundle.path, replace(bundle.manifest, files=files))
    engines = OpenVinoEngines(changed, None, "asked for")
    assert graphs == ["label"]
    assert "were built from other graphs than it holds now; " + COMMAND.format(bundle.path) in engines.reason


def test_a_record_that_cannot_be_read(bundle: Bundle) -> None:
    (set_of(bundle) / "build.json").write_text("{")
    reason = OpenVinoEngines(bundle, None, "asked for").reason
    assert "holds no engines for openvino (" in reason
    assert "is malformed" in reason


def test_engines_of_other_backends_are_no_problem(bundle: Bundle) -> None:
    shutil.rmtree(bundle.path / "engines")
    build_engines(bundle, "onnxruntime")
    assert OpenVinoEngines(bundle, None, "asked for").reason == "asked for"


def test_a_read_only_bundle(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = shutil.copytree(tiny_bundle, tmp_path / "bundle")
    for path in (*folder.iterdir(), folder):
        path.chmod(0o555)

    # Root may write to it all the same.
    def refuse(*arguments: Any, **options: Any) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(Path, "mkdir", refuse)
    monkeypatch.setattr(Path, "write_bytes", refuse)
    monkeypatch.setattr(Path, "write_text", refuse)
    engines = OpenVinoEngines(Bundle.open(folder), None, "asked for")
    assert engines.reason == "asked for"
    assert engines["pixels"].run(IMAGE)["pixels"].shape[1] == 3
    assert main(["build", str(folder), "--backend", "openvino"]) == 2
    error = capsys.readouterr().err
    assert "engines: engines cannot be written (Permission denied), nothing is left of this build" in error
    assert error.count("\n") == 1
    folder.chmod(0o755)


OPEN = """
import sys
from sed_trt.bundle import Bundle
from sed_trt.engines.openvino.engines import OpenVinoEngines
print(OpenVinoEngines(Bundle.open(sys.argv[1]), None, "asked for").reason)
"""


def test_plans_of_a_processor_with_more(bundle: Bundle) -> None:
    """Where the bundle's record says nothing against it, OpenVINO itself does, or runs the plan."""
    done = subprocess.run(
        [sys.executable, "-c", OPEN, str(bundle.path)],
        capture_output=True,
        text=True,
        env={**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    if self_test("bf16").on_amx:
        assert "compiled from the bundle's graphs" in done.stdout


def test_a_default_build_takes_what_auto_takes(
    tiny_bundle_bf16: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sed_trt.engines.build import target

    def missing(backend: str) -> Any:
        raise InputError(f"{backend} is missing")

    monkeypatch.setattr(target, "load_library", missing)
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    assert target.default_backend(Bundle.open(tiny_bundle_bf16)) == "openvino"
