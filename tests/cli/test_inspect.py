"""`sed-trt inspect`, and what it knows about precision."""

import json
from pathlib import Path
from typing import Any

import pytest

from sed_trt.bundle import Bundle
from sed_trt.cli.main import main
from sed_trt.engines.build.build import build_engines
from sed_trt.engines.device.cuda import Gpu
from sed_trt.engines.trt.layers import count_layers
from sed_trt.engines.trt.library import load_library
from sed_trt.stages import BY_NAME, STAGE_NAMES
from sed_trt.tests.fakes.json_changes import changed
from sed_trt.tests.fakes.small_bundle import small_bundle
from sed_trt.tests.fakes.tensorrt import install_tensorrt

CHANGES = 100
PRECISIONS = {
    "CONVOLUTION": {"FLOAT": 3, "HALF": 1},
    "CONSTANT": {"FLOAT": 50},
    "MATRIX_MULTIPLY": {"HALF": 4},
}


@pytest.fixture
def bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bundle:
    """A small one in FP16; a build of it stores the graphs themselves."""
    monkeypatch.setattr(
        "sed_trt.engines.build.build.optimise_graph",
        lambda graph, stage, output, report: output.write_bytes(graph.read_bytes()),
    )
    return small_bundle(tmp_path / "bundle", "fp16")


def edit_side_car(folder: Path, stage: str, **network: Any) -> None:
    file = folder / f"{stage}.json"
    content = json.loads(file.read_text())
    content["network"] |= network
    file.write_text(json.dumps(content))


def facts(capsys: pytest.CaptureFixture[str], bundle: Bundle) -> dict[str, Any]:
    assert main(["inspect", str(bundle.path), "--json"]) == 0
    content: dict[str, Any] = json.loads(capsys.readouterr().out)
    return content


def test_bundle_without_engines(bundle: Bundle, capsys: pytest.CaptureFixture[str]) -> None:
    content = facts(capsys, bundle)
    assert content["precision"] == "fp16"
    assert content["engines"] == content["warnings"] == []
    assert content["stages"]["decode1"]["inputs"][2] == {"name": "kept0", "dtype": "int64", "shape": ["K1"]}
    assert main(["inspect", str(bundle.path)]) == 0
    shown = capsys.readouterr().out
    assert "sed-tiny, fp16" in " ".join(shown.split())
    assert "kept0" in shown and "(K1)" in shown
    assert "no engines are built" in shown
    assert f"sed-trt build {bundle.path}" in "".join(shown.split("\n"))


def test_engines_are_shown(bundle: Bundle, capsys: pytest.CaptureFixture[str]) -> None:
    engines = build_engines(bundle, "onnxruntime").engines
    edit_side_car(engines.folder, "image", layers=58, precisions=PRECISIONS)
    (content,) = facts(capsys, bundle)["engines"]
    assert content["folder"] == str(engines.folder)
    assert content["stages"]["image"]["layers"] == 58
    assert content["stages"]["image"]["precisions"] == PRECISIONS
    assert list(content["stages"]) == [stage for stage in STAGE_NAMES if not BY_NAME[stage].device_only]
    assert main(["inspect", str(bundle.path)]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert engines.folder.name in "".join(shown.split())
    # Three of four convolutions; of all layers but constants, three of eight.
    assert "FLOAT 3, HALF 1" in shown
    assert "FLOAT 3, HALF 5" in shown


@pytest.mark.parametrize(
    ("stage", "weights", "warned"),
    [
        ("image", {"FLOAT": 900, "HALF": 100}, True),
        ("image", {"FLOAT": 900}, True),
        ("image", {"FLOAT": 100, "HALF": 900}, False),
        ("image", {"FLOAT": 100, "BF16": 900}, False),
        ("image", {}, False),
        ("text", {"FLOAT": 900}, False),
        ("label", {"FLOAT": 900}, False),
    ],
)
def test_float_engines_of_a_half_bundle(
    stage: str, weights: dict[str, int], warned: bool, bundle: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = build_engines(bundle, "onnxruntime").engines.folder
    edit_side_car(folder, stage, convolution_weights=weights)
    warnings = facts(capsys, bundle)["warnings"]
    assert len(warnings) == warned
    assert all(f"{folder}: most convolutions of {stage} are in float32" in line for line in warnings)
    assert main(["inspect", str(bundle.path)]) == 0
    assert ("warning: " in capsys.readouterr().out) == warned


def test_float_engines_of_a_float_bundle(
    tmp_path: Path, bundle: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    other = small_bundle(tmp_path / "other")
    edit_side_car(
        build_engines(other, "onnxruntime").engines.folder, "image", convolution_weights={"FLOAT": 9}
    )
    assert facts(capsys, other)["warnings"] == []


def test_stale_and_damaged_engines(
    bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = build_engines(bundle, "onnxruntime").engines.folder
    other = small_bundle(tmp_path / "other")
    (bundle.path / "engines").rename(other.path / "engines")
    (line,) = facts(capsys, other)["warnings"]
    assert "was built from other graphs than the bundle holds now; run `sed-trt build" in line
    (other.path / "engines" / folder.name / "scout.json").unlink()
    content = facts(capsys, other)
    assert content["engines"] == []
    assert "scout.json: cannot be read" in content["warnings"][0]


def test_truncated_plan(bundle: Bundle, capsys: pytest.CaptureFixture[str]) -> None:
    engines = build_engines(bundle, "onnxruntime").engines
    engines.plan_file("image").write_bytes(b"?")
    (line,) = facts(capsys, bundle)["warnings"]
    command = f"sed-trt build {bundle.path} --backend onnxruntime"
    assert line == (f"{engines.folder}: a plan is missing or was truncated after the build; run `{command}`")
    assert not build_engines(bundle, "onnxruntime").already_built
    assert facts(capsys, bundle)["warnings"] == []


@pytest.mark.filterwarnings("error")
def test_changed_records_are_shown_or_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = small_bundle(tmp_path / "bundle", "fp16")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sed_trt.engines.build.target.find_gpu", lambda: Gpu("Fake", (8, 6), "13.0", 1))
        install_tensorrt(patch)
        folder = build_engines(bundle, "tensorrt").engines.folder
    load_library.cache_clear()
    files = sorted(folder.glob("*.json"))
    for seed in range(CHANGES):
        file = files[seed % len(files)]
        original = file.read_text()
        text, changes = changed(seed, original)
        file.write_text(text)
        try:
            content = facts(capsys, bundle)
            if content["engines"]:
                assert main(["inspect", str(bundle.path)]) == 0
            capsys.readouterr()
        except Exception as error:
            pytest.fail(f"seed {seed}, {file.name}, {changes}: {type(error).__name__}: {error}")
        assert content["engines"] or str(folder) in content["warnings"][0], (seed, changes)
        file.write_text(original)


def test_layers_of_both_inspectors() -> None:
    def output(**fields: str) -> dict[str, Any]:
        return {"LayerType": "kgen", "Outputs": [{"Name": "y", **fields}]}

    information = {
        "Layers": [
            output(**{"Format/Datatype": "Row major linear FP16 format"}),
            output(**{"Format/Datatype": "Half"}),
            output(DataType="Half", Format="Row major linear FP16 format (kLINEAR)"),
            output(DataType="BFloat16"),
            output(DataType="Float"),
            output(DataType="Int64"),
            output(**{"Format/Datatype": "N/A due to dynamic shapes"}),
            {"LayerType": "wait", "Outputs": []},
            "only a name",
        ]
    }
    assert count_layers(json.dumps(information)) == {"HALF": 3, "unknown": 3, "BF16": 1, "FLOAT": 1, "INT": 1}
