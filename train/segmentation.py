"""SED training as published: frozen text, binary cross-entropy at four heads."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from ..model import SED, Output
from .category_sampling import CategorySampler
from .config import TrainConfig
from .data import LabelledScenes, batches
from .optimizer import adamw, parameter_groups, set_lr


def segmentation_loss(output: Output, targets: Tensor) -> Tensor:
    """Sum over the four heads of the mean binary cross-entropy over categories and pixels.

    Args:
        output: of `SED.forward` for T categories.
        targets: int64 (B, R, R), positions among the T categories; a value outside 0..T-1 is an ignored
            pixel, whose target is zero for every category.

    Returns:
        A scalar.
    """
    categories = output.logits.shape[1]
    ids = torch.arange(categories, device=targets.device).view(1, -1, 1, 1)
    one_hot = (targets.unsqueeze(1) == ids).to(output.logits.dtype)
    heads = (output.logits, *output.aux)
    sized = [F.interpolate(head, size=targets.shape[-2:], mode="bilinear") for head in heads]
    return torch.stack([F.binary_cross_entropy_with_logits(head, one_hot) for head in sized]).sum()


def train_segmentation(model: SED, config: TrainConfig) -> Iterator[dict[str, float]]:
    """Train the decoder and the image encoder of `model` in place; yields the metrics of each step."""
    for name, parameter in model.clip.named_parameters():
        parameter.requires_grad_(name.startswith("visual."))
    sampler = CategorySampler(config.categories, config.seed)
    text = model.eval().encode_vocabulary(sampler.names)
    model.train()
    dataset = LabelledScenes(
        config.steps * config.batch, model.preset.image_size, config.target_size, config.seed
    )
    optimizer = adamw(
        [
            *parameter_groups(model.decoder, config.lr, config.weight_decay),
            *parameter_groups(model.clip.visual, config.lr * config.encoder_lr_factor, config.weight_decay),
        ]
    )
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for step, (images, labels) in enumerate(batches(dataset, config.batch, config.workers)):
        set_lr(optimizer, step, config.steps)
        chosen, targets = sampler.draw(labels.numpy())
        output = model(images, text[torch.from_numpy(chosen)])
        target = torch.from_numpy(targets)
        loss = segmentation_loss(output, target)
        optimizer.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(trained, config.grad_clip)
        optimizer.step()
        guess = F.interpolate(output.logits.detach(), size=target.shape[-2:], mode="bilinear").argmax(1)
        yield {
            "loss": loss.item(),
            "grad_norm": norm.item(),
            "accuracy": (guess == target).float().mean().item(),
        }
