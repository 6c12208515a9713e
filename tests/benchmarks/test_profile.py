"""Profiles: every operator counted once, in its kind, and all stages there."""

import json
from pathlib import Path
from typing import Any

import pytest

from sed_trt.benchmarks.report.pages import markdown_table
from sed_trt.benchmarks.speed.operators import (
    medians_of_counters,
    medians_of_trace,
    of_last_run,
)
from sed_trt.benchmarks.speed.profile import KINDS, OTHER, kind_of, summary
from sed_trt.cli.main import main
from sed_trt.stages import FOLDED_SCOUT


def event(name: str, operator: str, microseconds: int, kind: str = "kernel_time") -> dict[str, Any]:
    """One of ONNX Runtime's trace."""
    return {
        "cat": "Node",
        "name": f"{name}_{kind}",
        "dur": microseconds,
        "args": {"op_name": operator},
    }


def test_medians_after_the_first_run_by_kind() -> None:
    events = [
        event("a", "MatMul", 90_000),
        event("b", "Add", 50_000),
        *(event("a", "MatMul", microseconds) for microseconds in (1_000, 2_000, 9_000)),
        *(event("b", "Add", microseconds) for microseconds in (3_000, 3_000, 4_000)),
        event("c", "MatMul", 500),
        event("a", "MatMul", 70_000, "fence_before"),
        {"cat": "Session", "name": "model_run", "dur": 1_000_000},
    ]
    found = summary([medians_of_trace(events)])
    assert found["ms"] == pytest.approx(5.5)
    assert found["kinds_ms"]["matrix products"] == pytest.approx(2.5)
    assert found["kinds_ms"][OTHER] == pytest.approx(3.0)
    assert list(found["operators_ms"]) == ["Add", "MatMul"]
    # A stage that runs twice takes as long as both runs.
    assert summary([medians_of_trace(events), medians_of_trace(events)])["ms"] == pytest.approx(11.0)
    row = {"stage": "decode1", **found}
    table = markdown_table([{"kind": "profile", "kinds": [*KINDS, OTHER], "results": [row]}])
    assert "| decode1 | 5.5 | 45 | 0 | 0 | 0 | 55 | Add 3, MatMul 2 |" in table


def test_no_operator_is_of_two_kinds() -> None:
    operators = [operator for kind in KINDS.values() for operator in kind]
    assert len(operators) == len(set(operators))
    assert kind_of("ConvTranspose") == "convolutions" and kind_of("Gelu") == OTHER


def test_medians_of_counters_over_the_runs() -> None:
    runs = [{"a": ("MVN", 1.0), "b": ("Reorder", 5.0)}, {"a": ("MVN", 9.0)}, {"a": ("MVN", 2.0)}]
    assert medians_of_counters(runs) == [("MVN", 2.0)]
    assert kind_of("MVN") == "norms" and kind_of("FullyConnected") == "matrix products"


def test_counters_tell_the_time_of_one_run() -> None:
    before, after = {"a": ("MVN", 3.0)}, {"a": ("MVN", 4.0), "b": ("Reorder", 1.0)}
    # Two runs of 3 ms each, then one of 6 ms.
    assert of_last_run(before, after, 3) == {"a": ("MVN", 6.0), "b": ("Reorder", 3.0)}
    # A counter has whole microseconds.
    assert of_last_run({"a": ("MVN", 3.001)}, {"a": ("MVN", 3.0)}, 5000)["a"][1] == 0


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_every_stage_of_an_image_is_profiled(
    tiny_bundle: Path, backend: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip(backend)
    output = tmp_path / "profile.json"
    command = ["bench", "profile", str(tiny_bundle), "--categories", "20", "--kept", "8", "--rounds", "2"]
    assert main([*command, "--backend", backend, "-o", str(output)]) == 0
    content = json.loads(output.read_text())
    assert content["backend"] == backend
    # Where the vocabulary is folded, that is no work of an image.
    stages = ["pixels", "image", FOLDED_SCOUT.name, "decode1", "decode2", "decode3", "label"]
    assert [row["stage"] for row in content["results"]] == stages
    assert content["kept"] == [8, 8, 8] and content["categories"] == 20
    for row in content["results"]:
        assert sum(row["kinds_ms"].values()) == pytest.approx(row["ms"])
    shares = {row["stage"]: row["kinds_ms"]["convolutions"] for row in content["results"]}
    assert shares["decode3"] > 0 and shares["label"] == 0
    assert "decode3" in capsys.readouterr().out
