"""SED training as published: frozen text, binary cross-entropy at four heads."""

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import Tensor

from ..errors import InputError
from ..model import SED, Output
from ..runtime.text import TextCache, cached_embeddings
from .checkpoint import Checkpoints, Phase, Position
from .config import TrainConfig
from .datasets import Dataset
from .logging import MetricsLog, side_by_side
from .optim import adamw, published_groups, select_trained, set_lr
from .samples import Batch, CategorySampler, TrainedNames, TrainingSamples, micro_batch, training_batches

# Part of the key of cached embeddings: increase it when the same text encoder gives others.
CACHE_FORMAT = 1
# Names that are embedded at a time.
GROUP = 64


def train_segmentation(
    model: SED,
    config: TrainConfig,
    data: tuple[Dataset, TrainedNames],
    accelerator: Accelerator,
    checkpoints: Checkpoints,
    log: MetricsLog,
) -> None:
    """Train `model` in place as `config` says, from the newest checkpoint or the first step.

    Every process calls it; each takes its share of every batch.

    Raises:
        InputError: a sample is broken, the loss stopped being a number, or the disk is full.
    """
    dataset, names = data
    rank, processes, device = accelerator.process_index, accelerator.num_processes, accelerator.device
    with accelerator.main_process_first():
        text = embeddings(model, names.names).to(device)
    sampler = CategorySampler(names, config.categories, config.seed, config.vary_categories)
    samples = TrainingSamples(dataset, sampler, config)

    trained = select_trained(model, config)
    model.clip.visual.trunk.set_grad_checkpointing(config.checkpointing)
    if not config.guidance_gradient:
        cut_guidance_gradient(model)
    optimizer = segmentation_optimizer(model, config)
    network, prepared = accelerator.prepare(model.train(), optimizer)
    # Stochastic depth must not drop the same blocks in every process.
    torch.manual_seed(config.seed + rank)
    first = checkpoints.restore(Phase.STEP, optimizer)
    batches = training_batches(samples, first, rank, processes, pin=device.type == "cuda")

    log.start_phase()
    for step in range(first, config.steps):
        set_lr(optimizer, step, config.steps)
        prepared.zero_grad()
        total = torch.zeros((), device=device)
        for number in range(config.accumulate):
            batch = next(batches).to(device)
            is_last = number == config.accumulate - 1
            with nullcontext() if is_last else accelerator.no_sync(network):
                output = network(batch.images, text if batch.chosen is None else text[batch.chosen])
                loss = segmentation_loss(output, batch.targets, config.train == "all") / config.accumulate
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

        here = Position(Phase.STEP, step + 1)
        metrics = {"loss": sum(losses) / processes, "grad_norm": norm}
        if log.is_due(here.step, config.steps):
            metrics |= {"lr": optimizer.param_groups[0]["lr"], "accuracy": accuracy(output, batch)}
        log.add(here, config.steps, config.batch, metrics)
        if here.step % config.picture_every == 0 and accelerator.is_main_process:
            log.add_image(here, first_sample(output, batch, len(names.names)))
        if here.step % config.save_every == 0 or here.step == config.steps:
            checkpoints.save(here, model, optimizer)


def embeddings(model: SED, names: Sequence[str]) -> Tensor:
    """The embeddings of names, cached on disk for all runs with the same names and text encoder.

    Args:
        model: its text encoder and templates count; it is left in training mode or out of it, as it was.
        names: T category names.

    Returns:
        Unit vectors, float32 (T, P, C), on the CPU.

    Raises:
        InputError: a name is empty or too long.
    """

    def embed(missing: Sequence[str]) -> Iterator[np.ndarray]:
        lacking = set(missing)
        # In the same groups after an interruption too: the last bits may depend on them.
        for start in range(0, len(names), GROUP):
            group = names[start : start + GROUP]
            rows = [row for row, name in enumerate(group) if name in lacking]
            if rows:
                yield model.encode_vocabulary(group)[rows].cpu().numpy()

    cache = TextCache(digest(model, names), (len(model.templates), model.preset.embed_dim))
    training, precision = model.training, torch.get_float32_matmul_precision()
    # The cache serves runs on any device.
    torch.set_float32_matmul_precision("highest")
    model.eval()
    try:
        return torch.from_numpy(cached_embeddings(names, cache, embed))
    finally:
        torch.set_float32_matmul_precision(precision)
        model.train(training)


def digest(model: SED, names: Sequence[str]) -> str:
    """SHA-256 of all that the embeddings of names depend on, the other names included."""
    result = hashlib.sha256(json.dumps([CACHE_FORMAT, model.templates, list(names)]).encode())
    for name, value in sorted(model.clip.state_dict().items()):
        if not name.startswith("visual.") and name != "logit_scale":
            result.update(name.encode())
            result.update(value.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return result.hexdigest()


def segmentation_optimizer(model: SED, config: TrainConfig) -> torch.optim.Optimizer:
    """AdamW for what trains of decoder and image encoder, the latter at its fraction of the learning rate."""
    decoder = published_groups(model.decoder, config.lr, config.weight_decay)
    encoder_lr = config.lr * config.encoder_lr_factor
    return adamw([*decoder, *published_groups(model.clip.visual, encoder_lr, config.weight_decay)])


def cut_guidance_gradient(model: SED) -> None:
    """Let the image guidance read the encoder's features without shaping them, as published."""
    for projection in model.decoder.decoder_guidance_projection:
        projection.register_forward_pre_hook(lambda _module, inputs: tuple(x.detach() for x in inputs))


def segmentation_loss(output: Output, targets: Tensor, last_head: bool = True) -> Tensor:
    """Sum over the heads of the mean binary cross-entropy over categories and pixels.

    Args:
        output: of `SED.forward` for T categories.
        targets: int64 (B, R, R), positions among the T categories; a value outside 0..T-1 is an ignored
            pixel, whose target is zero for every category.
        last_head: count all four heads; without it, as published where the aux heads train alone, those
            three.

    Returns:
        A scalar.
    """
    categories = output.logits.shape[1]
    ids = torch.arange(categories, device=targets.device).view(1, -1, 1, 1)
    one_hot = (targets.unsqueeze(1) == ids).float()
    heads = (output.logits, *output.aux) if last_head else output.aux
    sized = [F.interpolate(head.float(), size=targets.shape[-2:], mode="bilinear") for head in heads]
    return torch.stack([F.binary_cross_entropy_with_logits(head, one_hot) for head in sized]).sum()


def not_a_number(
    what: str, samples: TrainingSamples, step: int, ranks: Iterable[int], processes: int
) -> InputError:
    """An error that names the samples of `ranks` in a step whose loss or gradient is not finite."""
    config = samples.config
    seen = [
        samples.identity(sample)
        for rank in ranks
        for number in range(config.accumulate)
        for sample in micro_batch(config, step, rank, processes, number)
    ]
    return InputError(f"the {what} at step {step + 1}, with {', '.join(seen)}; look at these, or lower lr")


@torch.no_grad()
def accuracy(output: Output, batch: Batch) -> float:
    """The share of correctly labelled pixels among those that have a category."""
    predicted = best_category(output).unsqueeze(1).float()
    sized = F.interpolate(predicted, size=batch.targets.shape[-2:], mode="nearest").squeeze(1)
    known = batch.targets >= 0
    return (((sized == batch.targets) & known).sum() / known.sum().clamp(min=1)).item()


def best_category(output: Output) -> Tensor:
    """The position of the category with the largest logit, int64 (B, 8h, 8w)."""
    return output.logits.detach().argmax(1)


def first_sample(output: Output, batch: Batch, names: int) -> np.ndarray:
    """The first sample of a batch beside its labels and its prediction, RGB uint8 (D, 3 D, 3)."""
    chosen = np.arange(names) if batch.chosen is None else batch.chosen[0].cpu().numpy()
    truth, predicted = batch.targets[0].cpu().numpy(), best_category(output)[0].cpu().numpy()
    return side_by_side(batch.images[0].cpu().numpy(), truth, predicted, chosen, names)
