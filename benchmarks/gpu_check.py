"""Tries every backend and target on this machine: does it build, run, agree with PyTorch, and how fast is it?

python -m sed_trt.benchmarks.gpu_check -o results.json

Every step is a process of its own, in most cases a command of sed-trt, so that a crash or a hang costs that
step and no other. The results file is written after each step. Without a GPU the check is a rehearsal: with a
small network, and for every row that needs a GPU the reason why it does not run.
"""

import contextlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from ..engines.store import ANY_TARGET
from ..errors import InputError
from ..files import check_writable, is_file, is_folder, replacing
from .report.pages import markdown_table
from .results_file import results_text, setting

ROOT = Path(__file__).resolve().parent
CHECKPOINT = ROOT.parent / "checkpoints" / "sed-tiny.safetensors"
RESULTS = ROOT / "results"
# The most that all steps take, if nothing else is asked for.
MINUTES = 8.0
# Less time than this is not worth starting a step with: its imports alone take as long.
MIN_SECONDS = 5.0
# The exit status of sed-trt's own one-line errors: something is missing here, and the line says what.
UNAVAILABLE = 2
# Characters of a step's output that are kept.
MAX_OUTPUT = 4000
# What `sed-trt bench latency` writes in the folder of the check.
RESULTS_FILE = "latency.json"

TINY = "sed-tiny"
SED_TRT = "-m sed_trt.cli.main"
# Exits with `UNAVAILABLE` where PyTorch sees no GPU.
SEES_GPU = "-c \"import torch; torch.cuda.is_available() or exit(print('PyTorch sees no GPU') or 2)\""
# The same where a backend cannot run.
CAN_RUN = (
    '-c "from sed_trt.engines.backends import unavailable_reason as reason; '
    "exit(reason('{}') and (print(reason('{}')) or 2))\""
)

GPU_BACKENDS = ("onnxruntime-cuda", "tensorrt", "tensorrt-rtx")
# A row: precisions of bundles, the backend that runs them, and the target that engines are built for, if any.
REFERENCE = "fp32 onnxruntime"
PARITY = ("fp32,fp16 onnxruntime-cuda", "fp16 tensorrt current", "fp16 tensorrt-rtx current")
SPEED = ("fp16,fp32 onnxruntime-cuda", "fp16 tensorrt current", "fp16 tensorrt-rtx current")
GRAPHS = ("fp16 onnxruntime-cuda", "fp16 tensorrt current", "fp16 tensorrt-rtx current")
STREAMS = ("fp16 onnxruntime-cuda", "fp16 tensorrt current", "fp16 tensorrt-rtx current")
# What the time that is left is used for: of the network with known weights, and of sed-tiny.
MORE_SPEED = ("bf16 onnxruntime-cuda", "bf16 tensorrt current", "bf16 tensorrt-rtx current")
OTHER_TARGETS = tuple(f"fp16 tensorrt-rtx {target}" for target in ("portable", "sm80", "sm86"))
MORE_PARITY = (
    *(f"{precision} tensorrt current" for precision in ("fp32", "bf16")),
    *(f"{precision} tensorrt-rtx current" for precision in ("fp32", "bf16")),
    "bf16 onnxruntime-cuda",
)
ON_SCENES = "--vocabulary-size 181 --kept real --pictures 2 --repeats 5 --stream 0 --against published"


@dataclass(frozen=True)
class Load:
    """What is measured of the network with known weights.

    Attributes:
        preset: of the network.
        sizes: of the vocabularies, with commas.
        kept: categories left after each rejection.
        repeats: rounds of each row.
        streamed: images of a stream.
        rehearsal: whether the CPU is timed too, and engines for other GPUs are left out.
    """

    preset: str
    sizes: str
    kept: int
    repeats: int
    streamed: int
    rehearsal: bool

    @property
    def network(self) -> str:
        """What steps call it."""
        return f"known-{self.preset}"


ON_GPU = Load("sed-b", "150,847", kept=32, repeats=10, streamed=32, rehearsal=False)
# Every step of a check in a few minutes, for a machine without a GPU.
REHEARSAL = Load("sed-tiny", "20,40", kept=8, repeats=2, streamed=4, rehearsal=True)


@dataclass(frozen=True)
class Step:
    """One process of the check.

    Attributes:
        name: unique among the steps.
        command: the arguments of Python as in a shell; "{work}" stands for the folder of the check.
        seconds: the most that it may take.
        needs: names of the steps that must be done before.
        any_target: whether engines that were built for another GPU are tried too.
    """

    name: str
    command: str
    seconds: float
    needs: tuple[str, ...] = ()
    any_target: bool = False


def checkpoint(network: str) -> str:
    """The file of its weights."""
    return f"{{work}}/{network}.{'safetensors' if network == TINY else 'pth'}"


def export(network: str, precision: str) -> Step:
    """The step that exports and verifies a bundle."""
    files = f"{checkpoint(network)} --output {{work}}/{network}-{precision}"
    needs = () if network == TINY else (f"{network} weights",)
    return Step(
        f"{network} {precision} export", f"{SED_TRT} export {files} --precision {precision}", 150, needs
    )


def backend_step(backend: str) -> Step:
    """The step that says whether a backend can run here, before anything is made for it."""
    return Step(f"backend {backend}", CAN_RUN.replace("{}", backend), 30)


def bench(network: str, row: str, options: str, what: str = "") -> list[Step]:
    """The steps of one row: bundles exported, engines built for a target, if any, and all of them timed.

    Args:
        network: whose weights they are.
        row: see `REFERENCE`.
        options: of `sed-trt bench latency`.
        what: is measured, in the name of the row; "" is the latency of one image.
    """
    precisions, backend, *target = row.split()
    runs = backend_step(backend)
    steps, bundles, needs = [runs], [], [runs.name]
    for precision in precisions.split(","):
        bundles.append(f"{{work}}/{network}-{precision}")
        steps.append(export(network, precision))
        if target:
            # Built again if it is there, since the newest engines are the ones that are taken.
            build = f"{SED_TRT} build {bundles[-1]} --backend {backend} --target {target[0]} --force"
            name = f"{network} {precision} {backend} {target[0]} build"
            steps.append(Step(name, build, 150, (runs.name, steps[-1].name)))
        needs.append(steps[-1].name)
    latency = (
        f"{SED_TRT} bench latency {' '.join(bundles)} --backend {backend} --no-alone {options} "
        f"--output {{work}}/{RESULTS_FILE}"
    )
    name = " ".join(filter(None, (network, row, what)))
    return [*steps, Step(name, latency, 90, tuple(needs), target not in ([], ["current"]))]


def plan(load: Load, device: str) -> list[Step]:
    """All steps, most valuable first.

    Args:
        load: of the network with known weights.
        device: where PyTorch runs, "cuda" or "cpu".
    """
    network, weights = load.network, f"{load.network} weights"

    def parity(rows: Sequence[str], runs_on: str = device) -> list[Step]:
        options = f"--checkpoint {checkpoint(TINY)} --device {runs_on} {ON_SCENES}"
        return [step for row in rows for step in bench(TINY, row, options)]

    def speed(rows: Sequence[str]) -> list[Step]:
        options = (
            f"--checkpoint {checkpoint(network)} --device {device} --pictures 1 "
            "--against published,published-autocast "
            f"--vocabulary-size {load.sizes} --kept {load.kept} --repeats {load.repeats} --stream 0"
        )
        return [step for row in rows for step in bench(network, row, options)]

    def streams(rows: Sequence[str]) -> list[Step]:
        options = (
            f"--against none --pictures 1 --vocabulary-size {load.sizes.split(',')[0]} --kept {load.kept} "
            f"--repeats 2 --stream {load.streamed}"
        )
        return [step for row in rows for step in bench(network, row, options, "stream")]

    def graphs(rows: Sequence[str]) -> list[Step]:
        options = (
            f"--against none --pictures 1 --vocabulary-size {load.sizes.split(',')[0]} --kept {load.kept} "
            f"--repeats {load.repeats} --stream 0 --cuda-graphs"
        )
        return [step for row in rows for step in bench(network, row, options, "CUDA graphs")]

    # PyTorch is timed without a bundle first, so that its rows need nothing else to work.
    pytorch = (
        f"-m sed_trt.benchmarks.pytorch_check {checkpoint(network)} {load.preset} {load.sizes} {load.kept} "
        f"{load.repeats} {device} {{work}}/{RESULTS_FILE}"
    )
    on_cpu = (REFERENCE,) if load.rehearsal else ()
    steps = [
        Step("device session", "-m sed_trt.benchmarks.device_check", 45),
        Step("device session of ONNX Runtime", "-m sed_trt.benchmarks.device_check onnxruntime", 45),
        # Before the first export, which may be for backends that cannot run.
        *(backend_step(backend) for backend in GPU_BACKENDS),
        *parity((REFERENCE,), "cpu"),
        *parity(PARITY),
        Step(weights, f"-m sed_trt.benchmarks.known_weights {checkpoint(network)} {load.preset}", 60),
        Step(f"{network} PyTorch", pytorch, 90, (weights,)),
        *speed((*on_cpu, *SPEED)),
        *streams((*on_cpu, *STREAMS)),
        *graphs(GRAPHS),
        *speed(MORE_SPEED),
        *parity(MORE_PARITY),
        *parity(() if load.rehearsal else OTHER_TARGETS),
    ]
    # Each bundle is exported, and each engine built, before the first row that needs it.
    return list(dict.fromkeys(steps))


def selected(steps: Sequence[Step], only: Sequence[str]) -> list[Step]:
    """The steps whose name contains a text of `only`, and those that they need; empty means all."""
    names = {step.name for step in steps if not only or any(text in step.name for text in only)}
    for step in reversed(steps):
        if step.name in names:
            names.update(step.needs)
    return [step for step in steps if step.name in names]


def run_steps(steps: Sequence[Step], work: Path, end: float) -> Iterator[dict[str, Any]]:
    """Run steps one after the other until `end`, by `time.monotonic`; yields the record of each."""
    # By the name of a step that is not done, why.
    problems: dict[str, str] = {}
    for step in steps:
        missing = [name for name in step.needs if name in problems]
        left = end - time.monotonic()
        if missing:
            record = _skipped(problems[missing[0]])
        elif not _is_wanted(step, steps, problems):
            record = _skipped("no row that can run needs it")
        elif left < MIN_SECONDS:
            record = _skipped("the time is over; give more with --minutes")
        else:
            record = run_step(step, work, min(step.seconds, left))
        if record["state"] != "done":
            cause = problems[missing[0]] if missing else f"{step.name}: {record['reason']}"
            problems[step.name] = cause
        yield {"name": step.name, **record}


def _is_wanted(step: Step, steps: Sequence[Step], problems: Mapping[str, str]) -> bool:
    """Whether a step is a row, or some row that can still run needs it."""
    needing = [other for other in steps if step.name in other.needs]
    return not needing or any(
        problems.keys().isdisjoint(other.needs) and _is_wanted(other, steps, problems) for other in needing
    )


def _skipped(reason: str) -> dict[str, Any]:
    return {"state": "skipped", "seconds": 0.0, "reason": reason}


def run_step(step: Step, work: Path, limit: float) -> dict[str, Any]:
    """Run a step for at most `limit` seconds, and kill it with all that it started when they are over.

    Returns:
        `state` ("done", "unavailable", "crashed" or "timeout"), `seconds`, `reason` where it is not done, and
        `latency`, what `sed-trt bench latency` measured, or else the end of the `output`.
    """
    results, log = work / RESULTS_FILE, work / "log.txt"
    results.unlink(missing_ok=True)
    command = [word.replace("{work}", str(work)) for word in shlex.split(step.command)]
    variables = {"SED_TRT_CACHE": str(work / "cache"), "TMPDIR": str(work), "PYTHONUNBUFFERED": "1"}
    if step.any_target:
        variables[ANY_TARGET] = "1"
    started = time.monotonic()
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, *command],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            process_group=0,
            env=os.environ | variables,
        )
        try:
            status: int | None = process.wait(limit)
        except subprocess.TimeoutExpired:
            status = None
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    output = log.read_text(errors="replace").strip()
    record = {**_ending(status, limit, output), "seconds": time.monotonic() - started}
    if is_file(results):
        # Even of a process that crashed at its end.
        record["latency"] = json.loads(results.read_text(encoding="utf-8"))
    else:
        record["output"] = output[-MAX_OUTPUT:]
    return record


def _ending(status: int | None, limit: float, output: str) -> dict[str, Any]:
    """State and reason of a process by its exit status; None is one that was killed."""
    last = output.splitlines()[-1] if output else "no output"
    if status == 0:
        return {"state": "done"}
    if status == UNAVAILABLE:
        return {"state": "unavailable", "reason": last}
    if status is None:
        return {"state": "timeout", "reason": f"its limit of {limit:.0f} s was over: {last}"}
    if status > 0:
        return {"state": "crashed", "reason": f"ended with exit status {status}: {last}"}
    return {"state": "crashed", "reason": f"died by {signal.strsignal(-status) or -status}: {last}"}


def check(
    checkpoint: Path, rehearse: bool | None, minutes: float, only: Sequence[str], output: Path | None
) -> dict[str, Any]:
    """Run the check and write its results file after every step; returns the content.

    Args:
        checkpoint: of sed-tiny.
        rehearse: whether to measure `REHEARSAL` rather than `ON_GPU`; None is where there is no GPU.
        minutes: for all steps.
        only: run the steps whose name contains one of these texts, and what they need; empty means all.
        output: the file; None is one in `RESULTS` named after the machine.

    Raises:
        InputError: there is no such checkpoint or step, or the file cannot be written.
    """
    if not is_file(checkpoint):
        raise InputError(f"{checkpoint}: no such file; name sed-tiny's checkpoint with --checkpoint")
    machine = setting()
    name = re.sub(r"[^a-z0-9]+", "-", (machine["gpu"] or machine["cpu"]).lower()).strip("-")
    file = output or RESULTS / f"gpu-check-{name}.json"
    if is_folder(file):
        raise InputError(f"{file}: is a folder; name a file for the results")
    check_writable(file.parent)
    load = REHEARSAL if rehearse or (rehearse is None and machine["gpu"] is None) else ON_GPU
    if not selected(plan(load, "cpu"), only):
        raise InputError(f"--only: no step is called {' or '.join(only)}; leave it out to see all")
    content: dict[str, Any] = {**machine, "minutes": minutes, "results": []}
    end = time.monotonic() + 60 * minutes
    with tempfile.TemporaryDirectory(prefix="sed-trt-gpu-check-") as folder:
        work = Path(folder)
        shutil.copy(checkpoint, work / f"{TINY}.safetensors")
        facts = [Step("doctor", f"{SED_TRT} doctor", 30), Step("PyTorch on the GPU", SEES_GPU, 30)]
        for record in run_steps(facts, work, end):
            _add(record, content, file)
        device = "cuda" if content["results"][-1]["state"] == "done" else "cpu"
        for record in run_steps(selected(plan(load, device), only), work, end):
            _add(record, content, file)
    print(f"results: {file}", file=sys.stderr)
    return content


def _add(record: dict[str, Any], content: dict[str, Any], file: Path) -> None:
    """Add the record of a step to the results and write them."""
    content["results"].append(record)
    with replacing(file) as temporary:
        temporary.write_text(results_text("gpu-check", content), encoding="utf-8")
    reason = f" ({record['reason']})" if "reason" in record else ""
    print(f"{record['name']}: {record['state']} after {record['seconds']:.0f} s{reason}", file=sys.stderr)


def main(
    checkpoint: Annotated[Path, typer.Option(help="sed-tiny's checkpoint.")] = CHECKPOINT,
    rehearse: Annotated[
        bool | None,
        typer.Option(
            "--rehearse/--no-rehearse",
            help="Measure a small network instead of sed-b; by default where there is no GPU.",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="By default benchmarks/results/gpu-check-<machine>.json."),
    ] = None,
    minutes: Annotated[float, typer.Option(min=0.05, help="Most minutes for all steps.")] = MINUTES,
    only: Annotated[
        list[str] | None,
        typer.Option(help="Only steps whose name contains this, such as 'fp16 tensorrt-rtx'; repeatable."),
    ] = None,
) -> None:
    """Check every way to run SED on this machine: does it build, run and agree with PyTorch, and how fast?

    Example: python -m sed_trt.benchmarks.gpu_check --only "sed-tiny fp16" --minutes 4
    """
    # A request to end kills the process that is running and removes the temporary folder.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        content = check(checkpoint, rehearse, minutes, only or [], output)
    except InputError as error:
        print(f"gpu_check: error: {error}", file=sys.stderr)
        raise typer.Exit(2) from error
    print(markdown_table([content | {"kind": "gpu-check"}]))


if __name__ == "__main__":
    typer.run(main)
