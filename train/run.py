"""A whole training run: pre-training where the recipe has any, then SED, then the trained network's file."""

import math
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import torch
from accelerate import Accelerator

from ..errors import InputError
from ..model import SED, preset_named
from ..model.checkpoint import save
from .checkpoint import START, Checkpoints, Phase, Position, RunFolder
from .config import TrainConfig
from .distributed import one_line_errors, started
from .init import check_trained, initial_model
from .logging import MetricsLog, Report
from .loop import train_segmentation
from .optim import select_trained
from .pretrain import clip_optimizer, pretrain_clip, pretrain_text, text_optimizer
from .samples import open_training_data

PRETRAININGS = {
    Phase.TEXT: (text_optimizer, pretrain_text),
    Phase.CLIP: (clip_optimizer, pretrain_clip),
}


def train(
    config: TrainConfig,
    folder: Path,
    resume: bool = False,
    gpus: int | None = None,
    report: Report | None = None,
) -> Path:
    """Train as `config` says; every process that a launcher such as torchrun started calls this.

    Args:
        config: the settings.
        folder: of the run: settings, log, checkpoints and, in the end, the weights.
        resume: go on with the run in `folder` from its newest checkpoint.
        gpus: how many GPUs must be there; 0 means the CPU, None one for each process where there are any.
        report: called every `log_every` steps in process 0; None means no reports.

    Returns:
        The trained network's file.

    Raises:
        InputError: data, initial weights or GPUs are missing, nothing is left to train, `folder` cannot be
            written or holds another run, a sample is broken, memory is short, or the loss stopped being a
            number.
    """
    run = RunFolder(folder)
    if resume:
        run.check_same(config)
    else:
        run.check_new()
    with started(config, gpus, folder) as accelerator, one_line_errors(config):
        data = open_training_data(config)
        checkpoints = Checkpoints(run.checkpoints, config.keep, accelerator)
        model = load_or_init(config, accelerator, checkpoints)
        if accelerator.is_main_process:
            run.write(config)
        accelerator.wait_for_everyone()
        start = checkpoints.newest or START
        with closing(MetricsLog(run, config, start, accelerator, report)) as log:
            for phase in PRETRAININGS:
                if phase >= start.phase:
                    pretrain(phase, model, config, checkpoints, log)
                    if phase is Phase.CLIP and config.clip_steps and accelerator.is_main_process:
                        save(model, run.clip)
            train_segmentation(model, config, data, accelerator, checkpoints, log)
        if accelerator.is_main_process:
            save(model, run.weights, config.half)
        accelerator.wait_for_everyone()
    return run.weights


def load_or_init(config: TrainConfig, accelerator: Accelerator, checkpoints: Checkpoints) -> SED:
    """The network on its device, with the weights of the newest checkpoint or else the initial ones.

    Raises:
        InputError: the weights are missing, damaged, do not fit, or have no decoder where the aux heads alone
            train; or everything that would train is frozen.
    """
    torch.manual_seed(config.seed)
    if checkpoints.newest is not None:
        model = SED(preset_named(config.preset))
        checkpoints.load_weights(model)
    else:
        if config.train == "heads":
            check_trained(config.init)
        with accelerator.main_process_first():
            model = initial_model(config.preset, config.init)
    select_trained(model, config)
    # Training may see smaller images than use does; no weight depends on their size.
    model.preset = replace(model.preset, image_size=config.crop)
    return model.to(accelerator.device).to(memory_format=torch.channels_last)


def pretrain(
    phase: Phase, model: SED, config: TrainConfig, checkpoints: Checkpoints, log: MetricsLog
) -> None:
    """One phase of the pre-training, from its newest checkpoint or its first step; all processes do the same.

    Raises:
        InputError: the loss stopped being a number, or the disk is full.
    """
    make_optimizer, train_steps = PRETRAININGS[phase]
    steps, samples = getattr(config, f"{phase.label}_steps"), getattr(config, f"{phase.label}_batch")
    if not steps:
        return
    optimizer = make_optimizer(model, config)
    first = checkpoints.restore(phase, optimizer)
    log.start_phase()
    for step, metrics in enumerate(train_steps(model, config, optimizer, first), first + 1):
        if not math.isfinite(metrics["loss"]):
            raise InputError(
                f"{phase.label}: the loss is {metrics['loss']} at step {step}; lower {phase.label}_lr"
            )
        here = Position(phase, step)
        log.add(here, steps, samples, metrics)
        if step % config.save_every == 0 or step == steps:
            checkpoints.save(here, model, optimizer)
