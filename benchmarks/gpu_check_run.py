"""All jobs of the check one after the other, each in a process of its own."""

import json
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..files import is_folder
from .gpu_check_child import Ending, run_child
from .gpu_check_jobs import Job, Model, job_folder
from .gpu_check_steps import read_record
from .results_file import basics

MACHINE = "machine"
MACHINE_SECONDS = 90.0
EXPORT_SECONDS = 180.0
# Less is not worth starting with: the imports alone take so long.
LEAST_SECONDS = 5.0
JOB_FILE = "job.json"
# What a candidate that did not come to its end has no right to.
_FIGURES = (
    "first_call_ms",
    "kept",
    "agreement",
    "agreement_limit",
    "right",
    "scenes_with_equal_kept",
    "vocabulary_seconds",
    "device_mib",
    "pytorch_peak_mib",
    "reference",
)


class Budget:
    """The time that is left."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._end = time.monotonic() + seconds

    def left(self) -> float:
        """Seconds."""
        return self._end - time.monotonic()


def find_machine(work: Path, budget: Budget) -> dict[str, Any]:
    """What the machine is; as much of it as was found before a library crashed."""
    ending = _run(MACHINE, work, min(MACHINE_SECONDS, budget.left()))
    machine = basics() | read_record(job_folder(work, MACHINE))
    step = machine.pop("doing", None)
    reason = machine.pop("error", None) or ending.reason
    machine["error"] = f"{step}: {reason}" if reason else None
    return machine


def run_jobs(
    jobs: Sequence[Job], work: Path, budget: Budget, report: Callable[[dict[str, Any]], None]
) -> None:
    """Run the jobs that can be run in the time that is left; `report` is given the record of each."""
    records: dict[str, dict[str, Any]] = {}
    for job in jobs:
        reason = _obstacle(job, jobs, work, records, budget)
        record = _blank(job) | (_skipped(reason) if reason else _outcome(job, work, budget))
        records[job.name] = record
        report(record)


def _obstacle(
    job: Job, jobs: Sequence[Job], work: Path, records: dict[str, dict[str, Any]], budget: Budget
) -> str | None:
    """Why a job need not be started; None if nothing speaks against it."""
    if budget.left() < LEAST_SECONDS:
        return f"no time was left of {budget.seconds / 60:.3g} minutes; give more with --minutes"
    if job.kind == "engines" and not is_folder(job.bundle(work)):
        export = Job("export", job.model, job.precision).name
        error = records[export]["error"] if export in records else "no export was asked for"
        return f"its bundle was not exported: {error}"
    # A larger network would take long to fail in the same way.
    for other in jobs:
        same = (other.kind, other.backend, other.target, other.precision) == (
            job.kind,
            job.backend,
            job.target,
            job.precision,
        )
        failed = records.get(other.name, {}).get("state") in ("failed", "crashed", "stopped")
        if same and other.model != job.model and job.kind != "export" and failed:
            return f"did not run on {other.model.name}: {records[other.name]['error']}"
    return None


def _outcome(job: Job, work: Path, budget: Budget) -> dict[str, Any]:
    """Run a job and say what became of it."""
    most = EXPORT_SECONDS if job.kind == "export" else job.model.seconds
    _write_job(job, work)
    ending = _run(job.name, work, min(most, budget.left()))
    found = read_record(job.folder(work))
    # Engines of one candidate take as much of the disk as its bundle.
    shutil.rmtree(job.folder(work), ignore_errors=True)
    step = found.pop("doing", None)
    error = found.pop("error", None) or ending.reason
    ran = found.get("export_seconds" if job.kind == "export" else "latency") is not None
    if ran:
        state = "ran"
    elif ending.state == "done":
        state = "failed"
    else:
        state = ending.state
    if not ran:
        for figure in _FIGURES:
            found.pop(figure, None)
    if error is not None:
        found["error_in"] = step
    return found | {"state": state, "error": error, "seconds": ending.seconds}


def _run(name: str, work: Path, limit: float) -> Ending:
    folder = job_folder(work, name)
    command = [sys.executable, "-m", "sed_trt.benchmarks.gpu_check", "--one", name, "--folder", str(work)]
    folder.mkdir(parents=True, exist_ok=True)
    variables = {
        # Embeddings that one backend made must not be found by the next.
        "SED_TRT_CACHE": str(folder / "cache"),
        # Libraries leave files in the folder for temporary ones.
        "TMPDIR": str(folder),
        "PYTHONUNBUFFERED": "1",
    }
    return run_child(command, folder, limit, variables)


def _blank(job: Job) -> dict[str, Any]:
    return {
        "name": job.name,
        "model": job.model.name,
        "precision": job.precision,
        "backend": job.backend or None,
        "target": job.target,
        "built": False if job.builds else None,
        "opened": None if job.kind == "export" else False,
    }


def _skipped(reason: str) -> dict[str, Any]:
    return {"state": "skipped", "error": reason, "seconds": 0.0}


def read_job(name: str, work: Path) -> Job:
    """The job of this name, as `_write_job` put it there."""
    content = json.loads((job_folder(work, name) / JOB_FILE).read_text())
    return Job(**content | {"model": Model(**content["model"])})


def _write_job(job: Job, work: Path) -> None:
    folder = job.folder(work)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / JOB_FILE).write_text(json.dumps(asdict(job)))
