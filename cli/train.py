"""`sed-trt train`: training runs, on one process or many."""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .console import progress_bar
from .evaluate import evaluate

if TYPE_CHECKING:
    from ..train.logging import Report

DEFAULT_PRESET = "sed-tiny"
ERROR_DELAY_S = 5.0


def train(
    preset: Annotated[
        str | None, typer.Option(help="sed-b, sed-l or sed-tiny; its recipe gives every other default.")
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="Data set, such as coco-stuff or scenes, or an own folder.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The run's folder; by default runs/PRESET.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run in the folder from its newest checkpoint.")
    ] = False,
    root: Annotated[Path | None, typer.Option(help="Folder of the data sets; $SED_DATASETS.")] = None,
    init: Annotated[
        str | None,
        typer.Option(help="Weights to start from: random, a tag of open_clip, or a checkpoint file."),
    ] = None,
    config: Annotated[Path | None, typer.Option(help="YAML file of settings.")] = None,
    changes: Annotated[
        list[str] | None, typer.Option("--set", help="One setting, name=value; repeatable.")
    ] = None,
    steps: Annotated[int | None, typer.Option(min=0, help="Steps of the segmentation training.")] = None,
    text_steps: Annotated[int | None, typer.Option(min=0, help="Steps of the text pre-training.")] = None,
    clip_steps: Annotated[int | None, typer.Option(min=0, help="Steps of the CLIP pre-training.")] = None,
    batch: Annotated[
        int | None, typer.Option(min=1, help="Samples per step, in all processes together.")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Of weights, order and augmentation.")] = None,
    gpus: Annotated[
        int | None, typer.Option(min=0, help="GPUs that must be there, one per process; 0 for the CPU.")
    ] = None,
    mixed_precision: Annotated[str | None, typer.Option(help="no, fp16 or bf16.")] = None,
    accumulate: Annotated[
        int | None, typer.Option(min=1, help="Micro-batches that a process splits its share of a step into.")
    ] = None,
    checkpointing: Annotated[
        bool | None, typer.Option("--checkpointing/--no-checkpointing", help="Less memory, more time.")
    ] = None,
    parts: Annotated[
        str | None,
        typer.Option("--train", help="all, or heads: the aux heads that rejection reads, alone."),
    ] = None,
    freeze: Annotated[
        list[str] | None, typer.Option(help="encoder, res2 … res5, decoder or heads; repeatable.")
    ] = None,
    encoder_lr_factor: Annotated[
        float | None, typer.Option(help="The image encoder's learning rate, as a fraction.")
    ] = None,
    scenes: Annotated[
        int, typer.Option(min=0, help="After a training on scenes, test scenes to evaluate on; 0 for none.")
    ] = 200,
) -> None:
    """Train SED by its preset's recipe, on one process or, started by torchrun, on many.

    Example: sed-trt train --preset sed-tiny -o runs/sed-tiny

    Example: torchrun --nproc-per-node 4 -m sed_trt.cli.main train --preset sed-b --data coco-stuff
    """
    from .console import needs

    with needs("train"):
        from ..files import is_file, is_folder
        from ..train.checkpoint import RunFolder
        from ..train.config import RANDOM, parse_settings, read_settings, recipe
        from ..train.datasets import NAMES
        from ..train.run import train as run

    options = {
        "preset": preset,
        "data": data,
        "root": str(root) if root else None,
        "init": init,
        "steps": steps,
        "text_steps": text_steps,
        "clip_steps": clip_steps,
        "batch": batch,
        "seed": seed,
        "mixed_precision": mixed_precision,
        "accumulate": accumulate,
        "checkpointing": checkpointing,
        "train": parts,
        "freeze": freeze or None,
        "encoder_lr_factor": encoder_lr_factor,
    }
    with errors_printed_once():
        settings: dict[str, Any] = {
            **(read_settings(config) if config else {}),
            **parse_settings(changes or []),
            **{name: value for name, value in options.items() if value is not None},
        }
        # A run may be resumed from another working directory.
        for name, is_there in (("data", is_folder), ("init", is_file)):
            given = settings.get(name)
            if given and given not in (*NAMES, RANDOM) and is_there(Path(given)):
                settings[name] = str(Path(given).absolute())
        if settings.get("root"):
            settings["root"] = str(Path(settings["root"]).absolute())
        folder = output or Path("runs") / settings.get("preset", DEFAULT_PRESET)
        if resume:
            settings = {**RunFolder(folder).read(), **settings}
        chosen = recipe(**{"preset": DEFAULT_PRESET, **settings})
        last: dict[str, float] = {}
        with progress_reports(last) as report:
            weights = run(chosen, folder, resume, gpus, report)
    if is_main_process():
        print(f"trained: {weights}")
        if last:
            print(speed_and_memory(last))
        if chosen.data == "scenes" and scenes:
            evaluate(weights, scenes=scenes)


def is_main_process() -> bool:
    """Whether this is the process that prints: the only one, or number 0 of a launcher's."""
    return os.environ.get("RANK", "0") == "0"


@contextmanager
def errors_printed_once() -> Iterator[None]:
    """Let process 0 alone print an error that all processes have.

    The launcher ends the others once process 0 has ended, so one that still runs has an error of its own.
    """
    from ..errors import InputError

    try:
        yield
    except InputError:
        if not is_main_process():
            time.sleep(ERROR_DELAY_S)
        raise


@contextmanager
def progress_reports(last: dict[str, float]) -> "Iterator[Report | None]":
    """Show the reports of a run's process 0: as a bar on a terminal, else as lines on stderr.

    Args:
        last: gets the metrics of each report in turn.
    """
    if not is_main_process():
        yield None
        return
    with progress_bar() as bar:
        task = bar.add_task("reading the first samples", total=None)
        # Time and step of the first report of each phase; a resumed phase does not start at its first step.
        first_reports: dict[str, tuple[float, int]] = {}

        def report(phase: str, done: int, total: int, metrics: dict[str, float]) -> None:
            last.update(metrics)
            text = " ".join(f"{name} {value:.4g}" for name, value in metrics.items())
            bar.update(task, description=f"{phase}: {text}", completed=done, total=total)
            if bar.disable:
                now = time.monotonic()
                then, first = first_reports.setdefault(phase, (now, done))
                left = duration((now - then) / (done - first) * (total - done)) if done > first else "?"
                print(f"{phase} {done}/{total}, {left} left: {text}", file=sys.stderr)

        yield report


def speed_and_memory(metrics: dict[str, float]) -> str:
    """One line: images per second, and the most GPU memory that the process has used, in MiB."""
    text = f"speed: {metrics['images_per_second']:.3g} images/s"
    memory = metrics.get("gpu_memory_mib")
    return text if memory is None else f"{text}, {memory:.0f} MiB of GPU memory"


def duration(seconds: float) -> str:
    """Hours, minutes and seconds."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"
