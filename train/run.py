"""A whole training run: CLIP, then SED, then the checkpoint."""

import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TextIO

import torch

from ..errors import InputError
from ..model import SED, preset_named
from ..model.checkpoint import save
from .caption_pretraining import pretrain_text
from .clip_pretraining import pretrain_clip
from .config import TrainConfig
from .initialise import initialise
from .segmentation import train_segmentation

# Phase, steps done, steps in all, mean metrics since the last report.
Report = Callable[[str, int, int, dict[str, float]], None]


def train(
    config: TrainConfig,
    output: Path,
    init: Path | None = None,
    half: bool = True,
    report: Report | None = None,
) -> SED:
    """Train and write `output`; a log in JSON lines goes beside it.

    Args:
        config: the settings.
        output: the checkpoint to write (.safetensors).
        init: a checkpoint to start from; None means random weights.
        half: store weights in 16 bits.
        report: called every `log_every` steps; None means no reports.

    Returns:
        The trained network, in evaluation mode.

    Raises:
        InputError: `output` cannot be written, `init` cannot be read or is of another preset, or the loss
            stopped being a number.
    """
    if output.suffix != ".safetensors":
        raise InputError(
            f"{output}: a checkpoint is written as .safetensors; name it {output.stem}.safetensors"
        )
    if output.is_dir():
        raise InputError(f"{output}: is a folder; name the file to write in it")
    torch.manual_seed(config.seed)
    if init is not None:
        model = SED.from_checkpoint(init, config.preset)
    else:
        model = SED(preset_named(config.preset))
        initialise(model)
    model.to(memory_format=torch.channels_last)
    log_file = output.with_suffix(".log.jsonl")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        log = log_file.open("w", encoding="utf-8")
    except OSError as error:
        raise InputError(
            f"{log_file}: cannot be written ({error.strerror}); choose another folder"
        ) from error
    with log:
        write_line(log, {"config": asdict(config)})
        for phase, steps in (("text", config.text_steps), ("clip", config.clip_steps)):
            metrics = pretrain_text(model, config) if phase == "text" else pretrain_clip(model, config)
            for _ in followed(phase, metrics, steps, config, log, report):
                pass
        save(model, output.with_name(f"{output.stem}.clip.safetensors"))
        for step in followed("sed", train_segmentation(model, config), config.steps, config, log, report):
            if step % config.save_every == 0:
                save(model, output, half)
    save(model, output, half)
    return SED.from_checkpoint(output)


def followed(
    phase: str,
    metrics: Iterator[dict[str, float]],
    steps: int,
    config: TrainConfig,
    log: TextIO,
    report: Report | None,
) -> Iterator[int]:
    """Log and report the metrics of a phase's steps; yields the number of steps done after each.

    Raises:
        InputError: the loss stopped being a number.
    """
    started = time.monotonic()
    window: list[dict[str, float]] = []
    for step, values in enumerate(metrics, start=1):
        if not math.isfinite(values["loss"]):
            raise InputError(f"{phase}: the loss is {values['loss']} at step {step}; lower the learning rate")
        window.append(values)
        if step % config.log_every == 0 or step == steps:
            means = {key: sum(each[key] for each in window) / len(window) for key in values}
            window.clear()
            write_line(
                log, {"phase": phase, "step": step, "seconds": round(time.monotonic() - started, 1), **means}
            )
            if report is not None:
                report(phase, step, steps, means)
        yield step


def write_line(log: TextIO, content: dict[str, object]) -> None:
    """One JSON line, on disk at once."""
    log.write(json.dumps(content) + "\n")
    log.flush()
