"""A whole training run: CLIP, then SED, then the checkpoint."""

import json
import math
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from ..errors import InputError
from ..model import SED, preset_named
from ..model.checkpoint import save
from .clip_pretraining import pretrain_clip
from .config import TrainConfig
from .segmentation import train_segmentation


def train(config: TrainConfig, output: Path, init: Path | None = None, half: bool = True) -> SED:
    """Train and write `output`; a log in JSON lines goes beside it.

    Args:
        config: the settings.
        output: the checkpoint to write (.safetensors).
        init: a checkpoint to start from, whose CLIP is taken as it is; None means random weights and a CLIP
            pre-training first.
        half: store weights in 16 bits.

    Returns:
        The trained network, in evaluation mode.

    Raises:
        InputError: `output` cannot be written, `init` cannot be read, or the loss stopped being a number.
    """
    if output.suffix != ".safetensors":
        raise InputError(
            f"{output}: a checkpoint is written as .safetensors; name it {output.stem}.safetensors"
        )
    torch.manual_seed(config.seed)
    model = SED.from_checkpoint(init) if init else SED(preset_named(config.preset))
    model.to(memory_format=torch.channels_last)
    log_file = output.with_suffix(".log.jsonl")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        log = log_file.open("w", encoding="utf-8")
    except OSError as error:
        raise InputError(
            f"{log_file}: cannot be written ({error.strerror}); choose another folder"
        ) from error
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[metrics]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with log, Progress(*columns, console=Console(stderr=True)) as progress:
        log.write(json.dumps({"config": asdict(config)}) + "\n")

        def follow(name: str, metrics: Iterator[dict[str, float]], steps: int) -> None:
            task = progress.add_task(name, total=steps, metrics="")
            started, window = time.monotonic(), []
            for step, values in enumerate(metrics, start=1):
                if not math.isfinite(values["loss"]):
                    raise InputError(
                        f"{name}: the loss is {values['loss']} at step {step}; lower the learning rate"
                    )
                window.append(values)
                if step % config.log_every == 0 or step == steps:
                    means = {key: sum(each[key] for each in window) / len(window) for key in values}
                    window.clear()
                    line = {
                        "phase": name,
                        "step": step,
                        "seconds": round(time.monotonic() - started, 1),
                        **means,
                    }
                    log.write(json.dumps(line) + "\n")
                    log.flush()
                    text = " ".join(f"{key} {value:.3f}" for key, value in means.items())
                    progress.update(task, completed=step, metrics=text)
                if name == "sed" and step % config.save_every == 0:
                    save(model, output, half=half)

        if init is None and config.clip_steps:
            follow("clip", pretrain_clip(model, config), config.clip_steps)
            save(model, output.with_name(f"{output.stem}.clip.safetensors"))
        follow("sed", train_segmentation(model, config), config.steps)
    save(model, output, half=half)
    return SED.from_checkpoint(output)
