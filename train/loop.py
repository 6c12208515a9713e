"""SED training as published: frozen text, binary cross-entropy at four heads."""

import math
from collections.abc import Iterable
from contextlib import nullcontext

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import Tensor

from ..errors import InputError
from ..model import SED, Output
from .checkpoint import PHASES, Point, Saving
from .config import TrainConfig
from .datasets import Dataset
from .embeddings import embeddings
from .logging import Journal, side_by_side
from .optim import adamw, is_trained, published_groups, set_lr
from .samples import Batch, CategorySampler, TrainedNames, TrainingSamples, part_numbers, training_batches

PHASE = PHASES.index("step")


def segmentation_loss(output: Output, targets: Tensor, last_head: bool = True) -> Tensor:
    """Sum over the heads of the mean binary cross-entropy over categories and pixels.

    Args:
        output: of `SED.forward` for T categories.
        targets: int64 (B, R, R), positions among the T categories; a value outside 0..T-1 is an ignored
            pixel, whose target is zero for every category.
        last_head: count all four heads; without it, as published where those of rejection train alone, the
            three aux heads.

    Returns:
        A scalar.
    """
    categories = output.logits.shape[1]
    ids = torch.arange(categories, device=targets.device).view(1, -1, 1, 1)
    one_hot = (targets.unsqueeze(1) == ids).float()
    heads = (output.logits, *output.aux) if last_head else output.aux
    sized = [F.interpolate(head.float(), size=targets.shape[-2:], mode="bilinear") for head in heads]
    return torch.stack([F.binary_cross_entropy_with_logits(head, one_hot) for head in sized]).sum()


def train_segmentation(
    model: SED,
    config: TrainConfig,
    data: tuple[Dataset, TrainedNames],
    accelerator: Accelerator,
    saving: Saving,
    journal: Journal,
) -> None:
    """Train what `config` says of `model`, in place, from the newest checkpoint or the first step.

    Every process calls it; each takes its share of every batch.

    Raises:
        InputError: a sample is broken, the loss stopped being a number, or the disk is full.
    """
    dataset, names = data
    rank, processes, device = accelerator.process_index, accelerator.num_processes, accelerator.device
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(is_trained(name, config.train, config.freeze))
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not config.guidance_gradient:
        for projection in model.decoder.decoder_guidance_projection:
            projection.register_forward_pre_hook(lambda _module, inputs: tuple(x.detach() for x in inputs))
    model.clip.visual.trunk.set_grad_checkpointing(config.checkpointing)
    with accelerator.main_process_first():
        text = embeddings(model, names.names).to(device)
    sampler = CategorySampler(names, config.categories, config.seed, config.vary_categories)
    samples = TrainingSamples(dataset, sampler, config)
    encoder_lr = config.lr * config.encoder_lr_factor
    optimizer = adamw(
        [
            *published_groups(model.decoder, config.lr, config.weight_decay),
            *published_groups(model.clip.visual, encoder_lr, config.weight_decay),
        ]
    )
    network, prepared = accelerator.prepare(model.train(), optimizer)
    # Stochastic depth must not drop the same blocks in every process.
    torch.manual_seed(config.seed + rank)
    first = saving.restore(PHASE, optimizer, accelerator.scaler)
    last_head = config.train == "all"
    batches = training_batches(samples, first, rank, processes, pin=device.type == "cuda")

    journal.begin()
    for step in range(first, config.steps):
        set_lr(optimizer, step, config.steps)
        prepared.zero_grad()
        total = torch.zeros((), device=device)
        for part in range(config.accumulate):
            batch = to_device(next(batches), device)
            last = part == config.accumulate - 1
            with nullcontext() if last else accelerator.no_sync(network):
                output = network(batch.images, text if batch.chosen is None else text[batch.chosen])
                loss = segmentation_loss(output, batch.targets, last_head) / config.accumulate
                accelerator.backward(loss)
            total += loss.detach()
        losses = accelerator.gather(total.view(1)).tolist()
        wrong = [each for each, value in enumerate(losses) if not math.isfinite(value)]
        if wrong:
            raise not_a_number(f"loss is {losses[wrong[0]]}", samples, step, wrong, processes)
        norm = accelerator.clip_grad_norm_(trained, config.grad_clip).item()
        # With FP16 the scaler leaves out a step whose gradient overflows, and scales less from then on.
        if accelerator.scaler is None and not math.isfinite(norm):
            raise not_a_number(f"gradient's norm is {norm}", samples, step, range(processes), processes)
        prepared.step()

        done = step + 1
        metrics = {"loss": sum(losses) / processes, "grad_norm": norm}
        if journal.is_due(done, config.steps):
            metrics |= {"lr": optimizer.param_groups[0]["lr"], "accuracy": accuracy(output, batch)}
        journal.note(PHASE, done, config.steps, config.batch, metrics)
        if done % config.picture_every == 0 and journal.speaks:
            journal.picture(PHASE, done, drawn(output, batch, len(names.names)))
        if done % config.save_every == 0 or done == config.steps:
            saving.save(Point(PHASE, done), model, optimizer, accelerator.scaler, journal.seconds)


def to_device(batch: Batch, device: torch.device) -> Batch:
    """The batch on a device."""
    chosen = None if batch.chosen is None else batch.chosen.to(device, non_blocking=True)
    images = batch.images.to(device, non_blocking=True)
    return Batch(images, batch.targets.to(device, non_blocking=True), chosen)


def not_a_number(
    what: str, samples: TrainingSamples, step: int, ranks: Iterable[int], processes: int
) -> InputError:
    """The error that names the samples that the processes `ranks` had in a step that went wrong."""
    config = samples.config
    seen = [
        samples.identity(number)
        for rank in ranks
        for part in range(config.accumulate)
        for number in part_numbers(config, step, rank, processes, part)
    ]
    return InputError(f"the {what} at step {step + 1}, with {', '.join(seen)}; look at these, or lower lr")


@torch.no_grad()
def accuracy(output: Output, batch: Batch) -> float:
    """The share of the pixels with a category that get it."""
    guess = predicted(output)
    sized = F.interpolate(guess.unsqueeze(1).float(), size=batch.targets.shape[-2:], mode="nearest")
    known = batch.targets >= 0
    right = (sized.squeeze(1) == batch.targets) & known
    return (right.sum() / known.sum().clamp(min=1)).item()


def predicted(output: Output) -> Tensor:
    """The best category's position at each position of the last map, int64 (B, 8h, 8w)."""
    return output.logits.detach().argmax(1)


def drawn(output: Output, batch: Batch, names: int) -> np.ndarray:
    """The first sample of a batch as a picture, its truth and its prediction."""
    chosen = np.arange(names) if batch.chosen is None else batch.chosen[0].cpu().numpy()
    truth, guess = batch.targets[0].cpu().numpy(), predicted(output)[0].cpu().numpy()
    return side_by_side(batch.images[0].cpu().numpy(), truth, guess, chosen, names)
