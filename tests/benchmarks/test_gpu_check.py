"""The check of a machine: each candidate in a process of its own, and a results file whatever happens."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sed_trt.benchmarks import gpu_check, gpu_check_run, gpu_check_steps
from sed_trt.benchmarks.gpu_check_child import run_child
from sed_trt.benchmarks.gpu_check_jobs import Job, Model, plan, selected
from sed_trt.benchmarks.gpu_check_pytorch import run_pytorch
from sed_trt.benchmarks.gpu_check_run import Budget, run_jobs
from sed_trt.benchmarks.gpu_check_steps import Steps
from sed_trt.benchmarks.gpu_check_table import show, summary
from sed_trt.engines.backends import unavailable_reason
from sed_trt.engines.device.cuda import find_gpu
from sed_trt.errors import InputError

TINY = Model("sed-tiny", "sed-tiny", "sed-tiny.safetensors", 2, 256, 181, 60.0)
RANDOM = Model("random-sed-b", "sed-b", None, 2, 640, 150, 60.0)
MODULE = [sys.executable, "-m", "sed_trt.benchmarks.gpu_check"]


def gpu_missing() -> str | None:
    """Why there is no GPU here; None if there is."""
    try:
        find_gpu()
    except InputError as error:
        return str(error)
    return None


def python(code: str) -> list[str]:
    """A command that runs code."""
    return [sys.executable, "-c", code]


def children(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """Let every process of a check run `code`, where `record` writes what was found before it ends."""
    helper = (
        "import json, os, pathlib, signal, sys, time\n"
        "def record(**found): pathlib.Path(sys.argv[1], 'record.json').write_text(json.dumps(found))\n"
    )

    def run(name: str, work: Path, limit: float) -> Any:
        folder = gpu_check_run.job_folder(work, name)
        folder.mkdir(parents=True, exist_ok=True)
        return run_child([*python(helper + code), str(folder)], folder, limit, {})

    monkeypatch.setattr(gpu_check_run, "_run", run)


def run(jobs: list[Job], work: Path, seconds: float = 60) -> list[dict[str, Any]]:
    """The records of jobs."""
    records: list[dict[str, Any]] = []
    run_jobs(jobs, work, Budget(seconds), records.append)
    return records


def test_a_small_check(tmp_path: Path) -> None:
    output, temporary = tmp_path / "results.json", tmp_path / "tmp"
    temporary.mkdir()
    only = ["fp32/onnxruntime", "fp32/tensorrt-rtx/portable", "fp32/tensorrt-rtx/current", "fp32/tensorrt/"]
    options = [word for name in only for word in ("--only", name)]
    done = subprocess.run(
        [*MODULE, "--scenes", "2", "--preset-random", "none", "--output", str(output), "--json", *options],
        capture_output=True,
        text=True,
        # Spinning threads of PyTorch would wait for other tests on the same cores.
        env={"TMPDIR": str(temporary), "PATH": os.environ["PATH"], "OMP_WAIT_POLICY": "PASSIVE"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    content = json.loads(output.read_text())
    assert json.loads(done.stdout) == content
    assert content["kind"] == "gpu-check" and content["device"]
    assert list(temporary.iterdir()) == []
    assert all(record["state"] == "ran" and record["verified"] for record in content["exports"])
    records = {record["name"].removeprefix("sed-tiny/fp32/"): record for record in content["candidates"]}
    assert records["pytorch-cpu"]["reference"]
    assert records["onnxruntime"]["agreement"] >= 99.9 and records["onnxruntime"]["right"]
    assert records["onnxruntime"]["kept"] == records["pytorch-cpu"]["kept"]
    for name in ("pytorch-cpu", "onnxruntime"):
        assert records[name]["opened"] and records[name]["state"] == "ran"
        assert "label" in records[name]["latency"]["stages_ms"]
    if unavailable_reason("onnxruntime-cuda"):
        assert records["onnxruntime-cuda"]["error"].startswith("backend onnxruntime-cuda: ")
    if gpu_missing():
        assert not records["tensorrt-rtx/current"]["built"]
        assert records["tensorrt-rtx/current"]["error_in"] == "building"
        assert records["tensorrt-rtx/portable"]["built"] == ("tensorrt-rtx" in content["versions"])
    for record in records.values():
        assert record["state"] == "ran" or record["error"]
        assert (record["state"] == "ran") == ("latency" in record)


def test_the_random_network_is_alive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_check_steps, "LEAST_RUNS", 1)
    monkeypatch.setattr(gpu_check_steps, "LATENCY_SECONDS", 0)
    model = Model("random-sed-tiny", "sed-tiny", None, 2, 128, 20, 60.0)
    reference = Job("pytorch", model, "fp32", "pytorch-cpu", reference=True)
    again = Job("pytorch", model, "bf16", "pytorch-cpu")
    found = []
    for job in (reference, again):
        job.folder(tmp_path).mkdir(parents=True)
        steps = Steps(job.folder(tmp_path))
        run_pytorch(job, tmp_path, steps)
        found.append(steps.found)
    with np.load(reference.reference_file(tmp_path)) as labels:
        assert len(np.unique(labels["labels"])) > 5
    assert 50 < found[1]["agreement"] < 100
    assert found[1]["right"] is None


@pytest.mark.parametrize(
    ("code", "state", "reason"),
    [
        ("print('hello')", "done", None),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "crashed", "died by SIGSEGV"),
        ("import os; print('over and\\nout'); os._exit(3)", "crashed", "ended with exit status 3; "),
    ],
)
def test_how_a_process_ends(code: str, state: str, reason: str | None, tmp_path: Path) -> None:
    ending = run_child(python(code), tmp_path, 30, {})
    assert ending.state == state
    assert (ending.reason or "").startswith(reason or "") and (reason is None) == (ending.reason is None)
    assert "over" not in code or "it printed last: over and | out" in str(ending.reason)


def test_a_process_that_hangs_is_stopped_with_what_it_started(tmp_path: Path) -> None:
    alive = tmp_path / "alive"
    grandchild = f"import pathlib, time\nwhile True: pathlib.Path({str(alive)!r}).touch(); time.sleep(0.05)"
    code = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {grandchild!r}])"
    ending = run_child(python(code), tmp_path, 2, {})
    assert (ending.state, ending.reason) == ("stopped", "its limit of 2 s was over")
    assert alive.exists()
    alive.unlink()
    time.sleep(0.3)
    assert not alive.exists()


def test_a_crash_keeps_what_was_found_but_no_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    children(
        monkeypatch,
        "record(doing='timing', built=True, opened=True, build_seconds=1.5, first_call_ms=3, agreement=100)\n"
        "os.kill(os.getpid(), signal.SIGABRT)",
    )
    job = Job("engines", TINY, "fp16", "tensorrt-rtx", "sm86")
    job.bundle(tmp_path).mkdir(parents=True)
    (record,) = run([job], tmp_path)
    assert record["state"] == "crashed" and record["error"] == "died by SIGABRT"
    assert record["error_in"] == "timing" and record["built"] and record["build_seconds"] == 1.5
    assert "first_call_ms" not in record and "agreement" not in record
    assert not job.folder(tmp_path).exists()


def test_a_crash_after_the_figures_leaves_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    latency = {"runs": 3, "p50_ms": 4.2, "p90_ms": 5.0, "stages_ms": {"label": 1.0}}
    children(
        monkeypatch,
        f"record(doing='ending', opened=True, agreement=100, latency={latency})\n"
        "os.kill(os.getpid(), signal.SIGSEGV)",
    )
    (record,) = run([Job("pytorch", TINY, "fp32", "pytorch-cuda")], tmp_path)
    assert record["state"] == "ran" and record["latency"] == latency
    assert record["error"] == "died by SIGSEGV" and record["error_in"] == "ending"


def test_jobs_that_need_not_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    children(monkeypatch, "record(doing='opening', error='not here')")
    records = run(plan(TINY, RANDOM, gpu=True, torch_cuda=True), tmp_path)
    states = {record["name"]: record["state"] for record in records}
    assert states["sed-tiny/fp32/pytorch-cpu"] == "failed"
    assert states["sed-tiny/fp16/tensorrt-rtx/sm86"] == "skipped"
    reasons = {record["name"]: record["error"] for record in records}
    assert reasons["sed-tiny/fp16/tensorrt-rtx/sm86"] == "its bundle was not exported: not here"
    assert reasons["random-sed-b/fp32/pytorch-cuda"] == "did not run on sed-tiny: not here"


def test_the_time_limit_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    children(monkeypatch, "time.sleep(600)")
    monkeypatch.setattr(gpu_check_run, "LEAST_SECONDS", 0.5)
    jobs = [Job("pytorch", TINY, precision, "pytorch-cuda") for precision in ("fp32", "fp16")]
    first, second = run(jobs, tmp_path, 1.5)
    assert (first["state"], second["state"]) == ("stopped", "skipped")
    assert "no time was left" in second["error"]


def test_too_little_time_still_gives_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "results.json"
    content = gpu_check.check(gpu_check.CHECKPOINT, "none", 0.1, 1, [], output)
    assert json.loads(output.read_text())["candidates"] == content["candidates"]
    assert {record["state"] for record in content["candidates"]} == {"skipped"}
    show(content)
    printed = capsys.readouterr().out
    assert "tensorrt-rtx sm86" in printed and "no time was left" in printed


def test_an_interrupted_check_keeps_what_it_had(tmp_path: Path) -> None:
    output, temporary = tmp_path / "results.json", tmp_path / "tmp"
    temporary.mkdir()
    process = subprocess.Popen(
        [*MODULE, "--output", str(output), "--only", "fp32/pytorch-cpu"],
        env={"TMPDIR": str(temporary), "PATH": os.environ["PATH"]},
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
    assert json.loads(output.read_text())["candidates"] == []
    assert list(temporary.iterdir()) == []


def test_the_plan_has_each_candidate_once_and_after_what_it_needs() -> None:
    jobs = plan(TINY, RANDOM, gpu=True, torch_cuda=True)
    names = [job.name for job in jobs]
    assert len(set(names)) == len(names)
    for position, job in enumerate(jobs):
        before = jobs[:position]
        if job.kind == "engines":
            assert any(each.kind == "export" and each.bundle(Path()) == job.bundle(Path()) for each in before)
        if job.kind != "export" and not job.reference:
            assert any(each.reference and each.model == job.model for each in before)
    targets = {job.target for job in jobs if job.backend == "tensorrt-rtx" and job.model == TINY}
    assert targets == {"portable", "current", "sm80", "sm86"}


def test_a_choice_brings_what_it_needs() -> None:
    jobs = plan(TINY, None, gpu=False, torch_cuda=False)
    names = [job.name for job in selected(jobs, ["fp16/tensorrt-rtx/sm86"])]
    assert names == ["sed-tiny/fp32/pytorch-cpu", "sed-tiny/fp16/export", "sed-tiny/fp16/tensorrt-rtx/sm86"]
    assert selected(jobs, ["no such"]) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"checkpoint": Path("missing.safetensors")}, "missing.safetensors: no such file"),
        ({"preset": "sed-x"}, "preset 'sed-x' is not known"),
        ({"output": Path()}, "is a folder"),
        ({"only": ["sed-x"]}, "no candidate is called sed-x"),
    ],
)
def test_bad_arguments(
    options: dict[str, Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    children(monkeypatch, "pass")
    arguments: dict[str, Any] = {
        "checkpoint": gpu_check.CHECKPOINT,
        "preset": None,
        "minutes": 1.0,
        "scenes": 1,
        "only": [],
        "output": tmp_path / "results.json",
    }
    with pytest.raises(InputError, match=message):
        gpu_check.check(**arguments | options)
    assert not (tmp_path / "results.json").exists()


def test_the_command_says_what_is_wrong_in_one_line() -> None:
    done = subprocess.run([*MODULE, "--output", "."], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1 and "is a folder" in done.stderr


def test_names() -> None:
    assert gpu_check.file_name("NVIDIA RTX A6000") == "nvidia-rtx-a6000"
    record = {"name": "x", "state": "failed", "seconds": 2.0, "error": "no driver"}
    assert summary(record) == "x: failed after 2 s (no driver)"
