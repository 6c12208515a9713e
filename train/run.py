"""A whole training run: pre-training where the recipe has any, then SED, then the trained network's file."""

import math
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import torch
from accelerate import Accelerator

from ..errors import InputError
from ..model import SED, preset_named
from ..model.checkpoint import save
from .checkpoint import PHASES, Point, RunFolder, Saving
from .config import TrainConfig
from .distributed import enough_memory, started
from .init import check_trained, initial_model
from .logging import Journal, Report
from .loop import train_segmentation
from .optim import check_something_trains
from .pretrain import clip_optimizer, pretrain_clip, pretrain_text, text_optimizer
from .samples import open_training_data

MakeOptimizer = Callable[[SED, TrainConfig], torch.optim.Optimizer]
Pretrain = Callable[[SED, TrainConfig, torch.optim.Optimizer, int], Iterator[dict[str, float]]]
PRETRAININGS: tuple[tuple[MakeOptimizer, Pretrain], ...] = (
    (text_optimizer, pretrain_text),
    (clip_optimizer, pretrain_clip),
)


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
    with started(config, gpus) as accelerator, enough_memory(config):
        data = open_training_data(config)
        saving = Saving(run, config, accelerator)
        model = begun(config, accelerator, saving)
        accelerator.wait_for_everyone()
        if accelerator.is_main_process:
            run.write(config)
        accelerator.wait_for_everyone()
        journal = Journal(run, config, saving.newest, saving.seconds, accelerator, report)
        with closing(journal):
            for phase in range(saving.newest.phase, len(PRETRAININGS)):
                pretrain(phase, model, config, saving, journal)
                if phase == PHASES.index("clip") and config.clip_steps and accelerator.is_main_process:
                    save(model, run.clip)
            train_segmentation(model, config, data, accelerator, saving, journal)
        if accelerator.is_main_process:
            save(model, run.weights, config.half)
        accelerator.wait_for_everyone()
    return run.weights


def begun(config: TrainConfig, accelerator: Accelerator, saving: Saving) -> SED:
    """The network on its device, with the weights of the newest checkpoint or else the initial ones.

    Raises:
        InputError: the initial weights are missing, do not fit, or have no decoder where heads alone train;
            or everything that would train is frozen.
    """
    torch.manual_seed(config.seed)
    if saving.state is not None:
        model = SED(preset_named(config.preset))
        model.load_state_dict(saving.state["model"])
    else:
        if config.train == "heads":
            check_trained(config.init)
        with accelerator.main_process_first():
            model = initial_model(config.preset, config.init)
    check_something_trains((name for name, _ in model.named_parameters()), config.train, config.freeze)
    # Training may see smaller pictures than use does; no weight depends on their size.
    model.preset = replace(model.preset, image_size=config.crop)
    return model.to(accelerator.device).to(memory_format=torch.channels_last)


def pretrain(phase: int, model: SED, config: TrainConfig, saving: Saving, journal: Journal) -> None:
    """One phase of the pre-training, from its newest checkpoint or its first step; all processes do the same.

    Raises:
        InputError: the loss stopped being a number, or the disk is full.
    """
    make_optimizer, steps_of = PRETRAININGS[phase]
    steps, samples = ((config.text_steps, config.text_batch), (config.clip_steps, config.clip_batch))[phase]
    if not steps:
        return
    optimizer = make_optimizer(model, config)
    first = saving.restore(phase, optimizer)
    journal.begin()
    for done, metrics in enumerate(steps_of(model, config, optimizer, first), first + 1):
        if not math.isfinite(metrics["loss"]):
            raise InputError(
                f"{PHASES[phase]}: the loss is {metrics['loss']} at step {done}; lower {PHASES[phase]}_lr"
            )
        journal.note(phase, done, steps, samples, metrics)
        if done % config.save_every == 0 or done == steps:
            saving.save(Point(phase, done), model, optimizer, None, journal.seconds)
