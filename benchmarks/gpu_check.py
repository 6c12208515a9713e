"""Runs whatever this machine offers, compares it with PyTorch in FP32 and times it, in one command.

python -m sed_trt.benchmarks.gpu_check --minutes 8
"""

import re
import signal
import sys
import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import InputError
from ..files import check_writable, is_file, is_folder, replacing
from .gpu_check_jobs import Job, Model, job_folder, plan, selected
from .gpu_check_run import MACHINE, Budget, find_machine, read_job, run_jobs
from .gpu_check_steps import Steps, one_line
from .gpu_check_table import show, summary
from .results_file import results_text

ROOT = Path(__file__).resolve().parent
RESULTS = ROOT / "results"
CHECKPOINT = ROOT.parent / "checkpoints" / "sed-tiny.safetensors"
NO_RANDOM = "none"
# The table is still to be printed when the time is up.
RESERVE_SECONDS = 3.0
RANDOM_SCENES = 2
RANDOM_SCENE_SIZE = 640
RANDOM_CATEGORIES = 150
TRAINED_CATEGORIES = 181
TRAINED_SECONDS = 90.0
RANDOM_SECONDS = 150.0


def check(
    checkpoint: Path, preset: str | None, minutes: float, scenes: int, only: list[str], output: Path | None
) -> dict[str, Any]:
    """Run the check and write its results file after every part; returns its content.

    Args:
        checkpoint: of the network with trained weights.
        preset: of the network with random weights; None is sed-b where there is a GPU, "none" is none.
        minutes: for all of it.
        scenes: how many test scenes the trained network labels.
        only: run candidates whose name holds one of these texts; empty means all.
        output: the file; None is one in `RESULTS` named after the machine.

    Raises:
        InputError: the checkpoint is not there, the preset is unknown, nothing is called as `only` says, or
            the file cannot be written.
    """
    if not is_file(checkpoint):
        raise InputError(f"{checkpoint}: no such file; name sed-tiny's checkpoint with --checkpoint")
    if preset is not None and preset != NO_RANDOM:
        # It brings PyTorch, which may be missing or broken: only for a preset that may be misspelt.
        from ..model.presets import preset_named

        preset_named(preset)
    if output is not None and is_folder(output):
        raise InputError(f"{output}: is a folder; name a file for the results")
    check_writable(output.parent if output else RESULTS)
    budget = Budget(60 * minutes - RESERVE_SECONDS)
    with tempfile.TemporaryDirectory(prefix="sed-trt-gpu-check-") as folder:
        work = Path(folder)
        machine = find_machine(work, budget)
        file = output or RESULTS / f"gpu-check-{file_name(machine['name'])}.json"
        jobs = selected(_plan(checkpoint, preset, scenes, machine), only)
        if not jobs:
            raise InputError(f"--only: no candidate is called {' or '.join(only)}; leave it out to see all")
        content: dict[str, Any] = {
            "device": machine["name"],
            "versions": machine.pop("versions"),
            "hardware": machine,
            "minutes": minutes,
            "scenes": scenes,
            "rejection": "topk:8",
            "exports": [],
            "candidates": [],
        }
        _write(content, file)

        def report(record: dict[str, Any]) -> None:
            content["candidates" if record["backend"] else "exports"].append(record)
            _write(content, file)
            print(summary(record), file=sys.stderr)

        run_jobs(jobs, work, budget, report)
    print(f"results: {file}", file=sys.stderr)
    return content


def file_name(machine: str) -> str:
    """What a file may be called after a GPU or CPU: "NVIDIA RTX A6000" is "nvidia-rtx-a6000"."""
    return re.sub(r"[^a-z0-9]+", "-", machine.lower()).strip("-") or "unknown"


def run_one(name: str, work: Path) -> None:
    """Do one job; this is a process of its own, which may end at any step."""
    steps = Steps(job_folder(work, name))
    try:
        if name == MACHINE:
            from .results_file import describe_machine

            describe_machine(steps)
        else:
            _run_job(read_job(name, work), work, steps)
    except Exception as error:
        steps.note(error=one_line(error))


def _run_job(job: Job, work: Path, steps: Steps) -> None:
    if job.kind == "engines":
        # Without PyTorch, as in a deployment.
        from .gpu_check_engines import run_engines

        run_engines(job, work, steps)
        return
    from .gpu_check_pytorch import export, run_pytorch

    (export if job.kind == "export" else run_pytorch)(job, work, steps)


def _plan(checkpoint: Path, preset: str | None, scenes: int, machine: dict[str, Any]) -> list[Job]:
    tiny = Model(
        "sed-tiny",
        "sed-tiny",
        str(checkpoint.resolve()),
        scenes,
        256,
        TRAINED_CATEGORIES,
        TRAINED_SECONDS,
    )
    has_gpu = machine["gpu"] is not None
    name = preset or ("sed-b" if has_gpu else NO_RANDOM)
    random = None
    if name != NO_RANDOM:
        random = Model(
            f"random-{name}",
            name,
            None,
            min(scenes, RANDOM_SCENES),
            RANDOM_SCENE_SIZE,
            RANDOM_CATEGORIES,
            RANDOM_SECONDS,
        )
    return plan(tiny, random, has_gpu, machine["torch_cuda"])


def _write(content: dict[str, Any], file: Path) -> None:
    with replacing(file) as temporary:
        temporary.write_text(results_text("gpu-check", content), encoding="utf-8")


def main(
    checkpoint: Annotated[Path, typer.Option(help="sed-tiny's checkpoint.")] = CHECKPOINT,
    preset_random: Annotated[
        str | None,
        typer.Option(
            help="Also a network of this preset with random weights; none to leave it out. By default sed-b "
            "where there is a GPU.",
            show_default=False,
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="By default benchmarks/results/gpu-check-<machine>.json.",
            show_default=False,
        ),
    ] = None,
    minutes: Annotated[float, typer.Option(min=0.1, help="Most minutes for all of it.")] = 8.0,
    scenes: Annotated[int, typer.Option(min=1, help="Test scenes that each candidate labels.")] = 6,
    only: Annotated[
        list[str] | None,
        typer.Option(help="Only candidates whose name holds this, such as fp16/tensorrt-rtx; repeatable."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the results as JSON.")] = False,
    one: Annotated[str | None, typer.Option(hidden=True)] = None,
    folder: Annotated[Path | None, typer.Option(hidden=True)] = None,
) -> None:
    """Check every way to run SED on this machine: does it build, open and agree with PyTorch, and how fast?

    Every candidate runs in a process of its own, so that one that crashes or hangs does not end the others.
    The results file is written after each.

    Example: python -m sed_trt.benchmarks.gpu_check --only sed-tiny/fp16 --minutes 4
    """
    if one is not None and folder is not None:
        run_one(one, folder)
        return
    # A polite request to end removes the temporary folder and ends the process that is running.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        content = check(checkpoint, preset_random, minutes, scenes, only or [], output)
    except InputError as error:
        print(f"gpu_check: error: {error}", file=sys.stderr)
        raise typer.Exit(2) from error
    if as_json:
        print(results_text("gpu-check", content), end="")
    else:
        show(content)


if __name__ == "__main__":
    typer.run(main)
