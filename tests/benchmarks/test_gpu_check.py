"""The check of a machine: each step in a process of its own, and a results file whatever happens."""

import inspect
import json
import os
import signal
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sed_trt.benchmarks import device_check, gpu_check
from sed_trt.benchmarks.device_check import check_session, leave_open
from sed_trt.benchmarks.gpu_check import (
    ON_GPU,
    REHEARSAL,
    RESULTS_FILE,
    Load,
    Step,
    check,
    plan,
    run_step,
    run_steps,
    selected,
)
from sed_trt.benchmarks.report.pages import markdown_table
from sed_trt.engines.store import ANY_TARGET
from sed_trt.errors import InputError
from sed_trt.tests.fakes.device import FakeDevice

MODULE = [sys.executable, "-m", "sed_trt.benchmarks.gpu_check"]
# What the rehearsal measures of the network with known weights on any machine.
ON_CPU = ("PyTorch", "fp32 onnxruntime", "fp32 onnxruntime stream")


def script(folder: Path, code: str, name: str = "step", **more: Any) -> Step:
    """A step that runs code."""
    file = folder / f"{name}.py"
    file.write_text(f"import os, pathlib, signal, subprocess, sys, time\n{code}\n")
    return Step(name, f"{{work}}/{file.name}", more.pop("seconds", 30), **more)


def run(steps: list[Step], work: Path, seconds: float = 60) -> list[dict[str, Any]]:
    """The records of steps."""
    return list(run_steps(steps, work, time.monotonic() + seconds))


def test_a_small_check(tmp_path: Path) -> None:
    output, temporary = tmp_path / "results.json", tmp_path / "tmp"
    temporary.mkdir()
    only = ["sed-tiny fp16 tensorrt-rtx", "device session", "PyTorch"]
    options = [word for name in only for word in ("--only", name)]
    done = subprocess.run(
        [*MODULE, "--rehearse", "-o", str(output), *options],
        capture_output=True,
        text=True,
        # Spinning threads of PyTorch would wait for other tests on the same cores.
        env=os.environ | {"TMPDIR": str(temporary), "OMP_WAIT_POLICY": "PASSIVE"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    content = json.loads(output.read_text())
    assert markdown_table([content]) == done.stdout.rstrip("\n")
    assert content["kind"] == "gpu-check" and content["cpu"]
    assert list(temporary.iterdir()) == []
    records = {record["name"]: record for record in content["results"]}
    assert records["doctor"]["state"] == "done" and "onnxruntime" in records["doctor"]["output"]
    pytorch = records["known-sed-tiny PyTorch"]["latency"]
    assert [row["categories"] for row in pytorch["results"]] == [20, 40]
    assert all(row["candidates"]["published"]["p50_ms"] > 0 for row in pytorch["results"])
    if not content["gpu"]:
        assert "needs --device cuda" in pytorch["skipped"]["published-autocast"]
        assert records["backend tensorrt-rtx"]["state"] == "unavailable"
        # Nothing is exported or built for a backend that cannot run.
        assert records["sed-tiny fp16 export"]["reason"] == "no row that can run needs it"
        for name in ("build", "current"):
            (row,) = (each for each in records if each.startswith("sed-tiny fp16") and each.endswith(name))
            assert records[row]["state"] == "skipped"
            assert records[row]["reason"].startswith("backend tensorrt-rtx: ")
        assert "GPU: " in records["device session"]["reason"]
        assert "onnxruntime-cuda: " in records["device session of ONNX Runtime"]["reason"]
    for record in records.values():
        assert record["state"] == "done" or record["reason"]


@pytest.mark.slow
def test_the_rehearsal_has_every_row_or_the_reason_why_it_did_not_run(tmp_path: Path) -> None:
    output = tmp_path / "results.json"
    done = subprocess.run(
        [*MODULE, "--rehearse", "--minutes", "30", "-o", str(output)],
        capture_output=True,
        text=True,
        env=os.environ | {"TMPDIR": str(tmp_path), "OMP_WAIT_POLICY": "PASSIVE"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    content = json.loads(output.read_text())
    states = {record["name"]: record["state"] for record in content["results"]}
    assert list(states)[2:] == [step.name for step in plan(REHEARSAL, "cpu")]
    on_cpu = ["sed-tiny fp32 onnxruntime", *(f"known-sed-tiny {name}" for name in ON_CPU)]
    assert [states[name] for name in on_cpu] == ["done"] * len(on_cpu)
    records = {record["name"]: record for record in content["results"]}
    (row,) = records["sed-tiny fp32 onnxruntime"]["latency"]["results"]
    ours, reference = row["candidates"]["sed-trt"], row["candidates"]["published"]
    assert ours["agreement"] >= 99.9 and reference["agreement"] == 100
    assert ours["kept"] == reference["kept"]
    assert "label" in ours["stages"] and "label" in reference["stages"]
    stream = records["known-sed-tiny fp32 onnxruntime stream"]["latency"]
    assert stream["results"][0]["images_per_second"]
    lines = done.stdout.splitlines()
    for record in content["results"]:
        assert record["state"] == "done" or len(record["reason"]) > 10
        assert any(line.startswith(f"| {record['name']} | {record['state']} ") for line in lines)


@pytest.mark.parametrize(
    ("code", "state", "reason"),
    [
        ("print('hello')", "done", None),
        ("os.kill(os.getpid(), signal.SIGSEGV)", "crashed", "died by Segmentation fault: no output"),
        ("print('over and\\nout', flush=True); os._exit(3)", "crashed", "ended with exit status 3: out"),
        ("raise ValueError('no')", "crashed", "ended with exit status 1: ValueError: no"),
        (
            "sys.stderr.write('sed-trt: error: no GPU\\n'); sys.exit(2)",
            "unavailable",
            "sed-trt: error: no GPU",
        ),
    ],
)
def test_how_a_step_ends(code: str, state: str, reason: str | None, tmp_path: Path) -> None:
    record = run_step(script(tmp_path, code), tmp_path, 30)
    assert (record["state"], record.get("reason")) == (state, reason)
    if "hello" in code:
        assert record["output"] == "hello"


def test_a_step_that_hangs_is_stopped_with_all_that_it_started(tmp_path: Path) -> None:
    alive = tmp_path / "alive"
    grandchild = f"import pathlib, time\nwhile True: pathlib.Path({str(alive)!r}).touch(); time.sleep(0.05)"
    step = script(tmp_path, f"subprocess.run([sys.executable, '-c', {grandchild!r}])")
    record = run_step(step, tmp_path, 2)
    assert (record["state"], record["reason"]) == ("timeout", "its limit of 2 s was over: no output")
    assert alive.exists()
    alive.unlink()
    time.sleep(0.3)
    assert not alive.exists()


def test_a_crash_after_the_figures_leaves_them(tmp_path: Path) -> None:
    code = f"pathlib.Path({str(tmp_path / RESULTS_FILE)!r}).write_text('{{\"results\": []}}')\n"
    crash = script(tmp_path, f"{code}os.kill(os.getpid(), signal.SIGABRT)", "first")
    first, second = run([crash, script(tmp_path, "pass", "second")], tmp_path)
    assert first["state"] == "crashed" and first["latency"] == {"results": []}
    assert second["state"] == "done" and "latency" not in second


def test_steps_that_need_not_start(tmp_path: Path) -> None:
    steps = [
        script(tmp_path, "sys.exit(2)", "export"),
        script(tmp_path, "pass", "build", needs=("export",)),
        script(tmp_path, "pass", "bench", needs=("build",)),
        script(tmp_path, "pass", "other"),
    ]
    records = run(steps, tmp_path)
    assert [record["state"] for record in records] == ["unavailable", "skipped", "skipped", "done"]
    assert [records[1]["reason"], records[2]["reason"]] == ["export: no output"] * 2


def test_what_only_rows_need_that_cannot_run_is_not_made(tmp_path: Path) -> None:
    steps = [
        script(tmp_path, "print('no GPU'); sys.exit(2)", "backend"),
        script(tmp_path, "pass", "weights"),
        script(tmp_path, "pass", "export", needs=("weights",)),
        script(tmp_path, "pass", "build", needs=("backend", "export")),
        script(tmp_path, "pass", "row", needs=("backend", "build")),
        script(tmp_path, "pass", "other", needs=("weights",)),
    ]
    records = {record["name"]: record for record in run(steps, tmp_path)}
    states = {name: record["state"] for name, record in records.items()}
    assert states == {
        "backend": "unavailable", "weights": "done", "export": "skipped", "build": "skipped",
        "row": "skipped", "other": "done",
    }  # fmt: skip
    assert records["row"]["reason"] == records["build"]["reason"] == "backend: no GPU"


def test_the_time_limit_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_check, "MIN_SECONDS", 0.5)
    steps = [script(tmp_path, "time.sleep(600)", name) for name in ("first", "second")]
    first, second = run(steps, tmp_path, 1.5)
    assert (first["state"], second["state"]) == ("timeout", "skipped")
    assert "the time is over" in second["reason"]


def test_engines_of_another_gpu_are_tried_where_a_target_is_named(tmp_path: Path) -> None:
    by_name = {step.name: step for step in plan(ON_GPU, "cuda")}
    for target, tried in {"current": False, "portable": True, "sm80": True}.items():
        assert by_name[f"sed-tiny fp16 tensorrt-rtx {target}"].any_target is tried
        assert not by_name[f"sed-tiny fp16 tensorrt-rtx {target} build"].any_target
    code = f"print({ANY_TARGET!r} in os.environ)"
    outputs = [
        run_step(script(tmp_path, code, any_target=any_target), tmp_path, 30)["output"]
        for any_target in (True, False)
    ]
    assert outputs == ["True", "False"]


def test_too_little_time_still_gives_a_file(tmp_path: Path) -> None:
    output = tmp_path / "results.json"
    content = check(gpu_check.CHECKPOINT, False, 0.05, [], output)
    assert json.loads(output.read_text())["results"] == content["results"]
    assert {record["state"] for record in content["results"]} == {"skipped"}
    table = markdown_table([content | {"kind": "gpu-check"}])
    assert "sed-tiny fp16 tensorrt-rtx sm86 | skipped" in table and "the time is over" in table


def test_an_interrupted_check_keeps_what_it_had(tmp_path: Path) -> None:
    output, temporary = tmp_path / "results.json", tmp_path / "tmp"
    temporary.mkdir()
    process = subprocess.Popen(
        [*MODULE, "-o", str(output), "--only", "fp32 onnxruntime"],
        env=os.environ | {"TMPDIR": str(temporary)},
        stderr=subprocess.DEVNULL,
    )
    try:
        until = time.monotonic() + 60
        while not output.exists() and time.monotonic() < until:
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) != 0
    finally:
        process.kill()
    assert json.loads(output.read_text())["results"][0]["name"] == "doctor"
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize("load", [ON_GPU, REHEARSAL])
def test_the_plan_has_each_step_once_and_after_what_it_needs(load: Load) -> None:
    steps = plan(load, "cuda")
    names = [step.name for step in steps]
    assert len(set(names)) == len(names)
    for position, step in enumerate(steps):
        assert set(step.needs) <= set(names[:position])


def test_the_plan_begins_with_what_is_worth_most() -> None:
    names = [step.name for step in plan(ON_GPU, "cuda") if not step.name.endswith(("export", "build"))]
    names = [name for name in names if not name.startswith("backend ")]
    assert names[:13] == [
        "device session",
        "device session of ONNX Runtime",
        "sed-tiny fp32 onnxruntime",
        "sed-tiny fp32,fp16 onnxruntime-cuda",
        "sed-tiny fp16 tensorrt current",
        "sed-tiny fp16 tensorrt-rtx current",
        "known-sed-b weights",
        "known-sed-b PyTorch",
        "known-sed-b fp16,fp32 onnxruntime-cuda",
        "known-sed-b fp16 tensorrt current",
        "known-sed-b fp16 tensorrt-rtx current",
        "known-sed-b fp16 onnxruntime-cuda stream",
        "known-sed-b fp16 tensorrt current stream",
    ]
    targets = {name.split()[3] for name in names if name.startswith("sed-tiny fp16 tensorrt-rtx")}
    assert targets == {"portable", "current", "sm80", "sm86"}


def test_the_rows_of_sed_b_are_those_that_were_asked_for() -> None:
    steps = {step.name: step.command for step in plan(ON_GPU, "cuda")}
    assert steps["known-sed-b PyTorch"].split()[-5:] == ["150,847", "32", "10", "cuda", "{work}/latency.json"]
    row = steps["known-sed-b fp16,fp32 onnxruntime-cuda"]
    assert "--vocabulary-size 150,847 --kept 32" in row and "--device cuda" in row
    assert "{work}/known-sed-b-fp16 {work}/known-sed-b-fp32 --backend onnxruntime-cuda" in row
    assert "--stream 32" in steps["known-sed-b fp16 tensorrt current stream"]
    assert "--cuda-graphs" in steps["known-sed-b fp16 onnxruntime-cuda CUDA graphs"]
    assert "--cuda-graphs" not in row


def test_all_steps_together_take_eight_minutes_at_most() -> None:
    assert inspect.signature(gpu_check.main).parameters["minutes"].default == 8.0


def test_a_choice_brings_what_it_needs() -> None:
    names = [step.name for step in selected(plan(ON_GPU, "cpu"), ["known-sed-b bf16 tensorrt-rtx"])]
    last = "known-sed-b bf16 tensorrt-rtx current"
    assert names == [
        "backend tensorrt-rtx",
        "known-sed-b weights",
        "known-sed-b bf16 export",
        f"{last} build",
        last,
    ]
    assert selected(plan(ON_GPU, "cpu"), ["no such"]) == []


def test_the_table_has_a_row_for_each_stream_and_size() -> None:
    figures = {"p50_ms": 5.0, "stages": {}}
    row = {"categories": 150, "kept": "32", "candidates": {"sed-trt": figures}, "errors": {}}
    row |= {"ours_faster_than": {}, "precision": "fp16", "backend": "tensorrt"}
    row["images_per_second"] = {"one at a time": 50.0, "stream, batch 4": 80.0}
    latency = {"results": [row], "candidates": {}, "skipped": {}}
    record = {"name": "a row", "state": "done", "seconds": 3.0, "latency": latency}
    lines = markdown_table([{"kind": "gpu-check", "results": [record]}]).splitlines()
    assert "| images per second |" in lines[0]
    assert [line.split(" | ")[3:6] for line in lines[2:]] == [
        ["sed-trt", "tensorrt, fp16", "150"],
        ["one at a time", "-", "150"],
        ["stream, batch 4", "-", "150"],
    ]
    assert "80.0" in lines[4]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"checkpoint": Path("missing.safetensors")}, "missing.safetensors: no such file"),
        ({"output": Path()}, "is a folder"),
        ({"output": Path("missing") / "results.json"}, "missing: cannot be written"),
        ({"only": ["sed-x"]}, "no step is called sed-x"),
    ],
)
def test_bad_arguments(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    arguments: dict[str, Any] = {
        "checkpoint": gpu_check.CHECKPOINT,
        "rehearse": None,
        "minutes": 1.0,
        "only": [],
        "output": tmp_path / "results.json",
    }
    with pytest.raises(InputError, match=message):
        check(**arguments | options)
    assert not (tmp_path / "results.json").exists()


def test_the_command_says_what_is_wrong_in_one_line() -> None:
    done = subprocess.run([*MODULE, "--output", "."], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1 and "is a folder" in done.stderr


class UnnamedDevice(FakeDevice):
    """A fake device whose addresses need no names, as nothing but copies is asked of it."""

    def __init__(self) -> None:
        super().__init__()
        self.names = defaultdict(str)


class WrongDevice(UnnamedDevice):
    """A device that changes what it copies to the host."""

    def download(self, target: np.ndarray, pointer: int) -> None:
        super().download(target, pointer)
        self.enqueue(lambda: target.__setitem__(slice(1), target[:1] + 1))


@pytest.fixture(autouse=True)
def small_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Copies of a size that the fake device does at once."""
    monkeypatch.setattr(device_check, "COPY_BYTES", 2**16)


def test_the_device_session_is_used_and_closed() -> None:
    device = UnnamedDevice()
    found = check_session(device)
    assert {"upload_ms", "download_ms"} < set(found)
    assert "the GPU's memory is too small" in str(found["out_of_memory"])
    assert device.closed and not device.memory and device.copies


def test_a_session_that_is_left_open_stays_usable() -> None:
    device = UnnamedDevice()
    session = leave_open(device)
    assert not device.closed and device.memory
    session.close()
    assert device.closed


def test_a_device_that_changes_values_is_noticed() -> None:
    with pytest.raises(RuntimeError, match="came back from the device changed"):
        check_session(WrongDevice())
