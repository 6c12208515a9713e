"""CLIP pre-training: pictures and captions that belong together are pulled together."""

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from ..model import SED
from ..model.clip import dense_features
from ..model.pixels import to_pixels
from .config import CROPS_PER_SCENE, TrainConfig
from .data import CaptionedCrops, batches
from .optimizer import adamw, parameter_groups, set_lr

MAX_LOGIT_SCALE = math.log(100)


def clip_optimizer(model: SED, config: TrainConfig) -> torch.optim.Optimizer:
    """The optimizer of what `pretrain_clip` trains: the image tower and the scale of the cosines."""
    for name, parameter in model.clip.named_parameters():
        parameter.requires_grad_(name.startswith("visual.") or name == "logit_scale")
    return adamw(parameter_groups(model.clip, config.clip_lr, weight_decay=0.05))


def pretrain_clip(
    model: SED, config: TrainConfig, optimizer: torch.optim.Optimizer, first: int = 0
) -> Iterator[dict[str, float]]:
    """Train the image tower of `model.clip` in place, its text tower locked, from the step `first` on.

    Yields the metrics of each step. Where pictures do not yet tell two names apart, an unlocked text tower
    would sooner merge them than wait. A picture's embedding is the mean over its positions, so that every
    position learns to speak for itself, which is how the cost map will read it.
    """
    clip = model.clip.train()
    scenes = config.clip_batch // CROPS_PER_SCENE
    dataset = CaptionedCrops(
        config.clip_steps * scenes, CROPS_PER_SCENE, config.clip_size, clip.context_length, config.seed
    )
    for step, batch in enumerate(batches(dataset, scenes, config.workers, first), first):
        images, tokens, content = (each.flatten(0, 1).to(model.device) for each in batch)
        set_lr(optimizer, step, config.clip_steps, warm_up=100)
        size = config.clip_size if step % 3 == 2 else config.clip_size // 2
        pixels = to_pixels(images, size).contiguous(memory_format=torch.channels_last)
        embed, _ = dense_features(clip.visual, pixels)
        picture = F.normalize(embed.mean((2, 3)), dim=-1)
        caption = clip.encode_text(tokens, normalize=True)
        same = same_content(content)
        similarity = clip.logit_scale.exp() * picture @ caption.T
        loss = (contrast(similarity, same) + contrast(similarity.T, same)) / 2
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(clip.visual.parameters(), 1.0)
        optimizer.step()
        clip.logit_scale.data.clamp_(0, MAX_LOGIT_SCALE)
        matched = same.gather(1, similarity.argmax(1, keepdim=True))
        yield {"loss": loss.item(), "matched": matched.float().mean().item()}


def same_content(content: Tensor) -> Tensor:
    """Which crops of a batch show the same: bool (N, N) from bool (N, names)."""
    return (content.unsqueeze(1) == content.unsqueeze(0)).all(-1)


def contrast(similarity: Tensor, same: Tensor) -> Tensor:
    """Cross-entropy of each row against all captions that fit it alike (UniCL, Yang et al., 2022).

    Args:
        similarity: scaled cosines, (N, N).
        same: bool (N, N), at least the diagonal.

    Returns:
        A scalar.
    """
    target = same / same.sum(1, keepdim=True)
    return -(target * similarity.log_softmax(1)).sum(1).mean()
