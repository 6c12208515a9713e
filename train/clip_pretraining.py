"""CLIP pre-training: pictures and captions that belong together are pulled together."""

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from open_clip.loss import ClipLoss

from ..model import SED
from ..model.clip import dense_features
from ..model.pixels import to_pixels
from .config import TrainConfig
from .data import CaptionedScenes, batches
from .optimizer import adamw, parameter_groups, set_lr

MAX_LOGIT_SCALE = math.log(100)


def pretrain_clip(model: SED, config: TrainConfig) -> Iterator[dict[str, float]]:
    """Train `model.clip` in place; yields the metrics of each step.

    A picture's embedding is the mean over its positions, so that every position learns to speak for itself,
    which is how the cost map will read it.
    """
    clip = model.clip.train()
    dataset = CaptionedScenes(
        config.clip_steps * config.clip_batch, config.clip_size, clip.context_length, config.seed
    )
    optimizer = adamw(parameter_groups(clip, config.clip_lr, weight_decay=0.05))
    contrast = ClipLoss()
    for step, (images, tokens) in enumerate(batches(dataset, config.clip_batch, config.workers)):
        set_lr(optimizer, step, config.clip_steps, warm_up=50)
        pixels = to_pixels(images, config.clip_size).contiguous(memory_format=torch.channels_last)
        embed, _ = dense_features(clip.visual, pixels)
        picture = F.normalize(embed.mean((2, 3)), dim=-1)
        caption = clip.encode_text(tokens, normalize=True)
        loss = contrast(picture, caption, clip.logit_scale.exp())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(clip.parameters(), 1.0)
        optimizer.step()
        clip.logit_scale.data.clamp_(0, MAX_LOGIT_SCALE)
        matched = (picture @ caption.T).argmax(1) == torch.arange(len(picture))
        yield {"loss": loss.item(), "matched": matched.float().mean().item()}
