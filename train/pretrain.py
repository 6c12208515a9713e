"""Pre-training of a small CLIP: its text tower on captions, its image tower on captioned crops of scenes."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from ..model import SED
from ..model.clip import dense_features
from ..model.labels import to_pixels
from ..model.text import tokenizer
from .config import CROPS_PER_SCENE, TrainConfig
from .optim import adamw, parameter_groups, set_lr
from .samples import prefetching_loader
from .scenes import COLOURS, PLAIN_THINGS, SEEN, STUFF, VOCABULARY, make_scene
from .scenes.names import caption

# Streams of random numbers, apart from each other and from those of the samples.
CROPS, CAPTIONS = 2, 3
# Scene seeds below these are for segmentation; the pre-training must not see the same images.
FIRST_SEED = 1_000_000_000
MAX_LOGIT_SCALE = math.log(100)
COLOURED = [name for name in SEEN if name.split()[0] in COLOURS]
PLAIN = [name for name in SEEN if name.split()[0] not in COLOURS]
# The share of a crop from which on each category is named: less for a thing than for stuff.
LIMITS = np.array([0.2 if name in STUFF else 0.12 for name in VOCABULARY])


def text_optimizer(model: SED, config: TrainConfig) -> torch.optim.Optimizer:
    """The optimizer of what `pretrain_text` trains: the text tower."""
    clip = model.clip.requires_grad_(True)
    text_tower = torch.nn.ModuleList([clip.transformer, clip.token_embedding, clip.ln_final])
    groups = parameter_groups(text_tower, config.text_lr, weight_decay=0.0)
    return adamw(
        [*groups, {"params": [clip.positional_embedding, clip.text_projection], "lr": config.text_lr}]
    )


def pretrain_text(
    model: SED, config: TrainConfig, optimizer: torch.optim.Optimizer, first: int = 0
) -> Iterator[dict[str, float]]:
    """Train the text tower of `model.clip` in place on captions alone, from the step `first` on.

    Yields the metrics of each step. The loss draws the cosine of two captions to that of the sets of words
    that they name. Without it, contrast with images starts at a saddle: as long as the images do not tell
    kinds of things apart, the captions need not, and vice versa. It also makes names compose: the embedding
    of a colour and a thing that were never named together lies where it belongs.
    """
    clip = model.clip.train()
    words = sorted({word for name in SEEN for word in name.split()})
    column = {word: index for index, word in enumerate(words)}
    for step in range(first, config.text_steps):
        random = np.random.default_rng([config.seed, CAPTIONS, step])
        set_lr(optimizer, step, config.text_steps, warm_up=30)
        named = [draw_names(random) for _ in range(config.text_batch)]
        sentences = [caption(things, stuff, random) for things, stuff in named]
        content = torch.zeros(len(named), len(words), device=model.device)
        for row, (things, stuff), sentence in zip(content, named, sentences, strict=True):
            for name in things + stuff:
                # A caption may leave the stuff out.
                if name in sentence:
                    row[[column[word] for word in name.split()]] = 1
        target = F.normalize(content, dim=1)
        tokens = tokenizer()(sentences, clip.context_length)
        embedding = clip.encode_text(tokens.to(model.device), normalize=True)
        loss = ((embedding @ embedding.T - target @ target.T) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        yield {"loss": loss.item()}


def draw_names(random: np.random.Generator) -> tuple[list[str], list[str]]:
    """Things and stuff for a caption: mostly one thing, sometimes two or none, and up to one stuff."""
    count = int(random.choice([0, 1, 1, 1, 2]))
    things = [str(name) for name in random.choice(COLOURED, count, replace=False)]
    stuff = [name for name in random.choice(PLAIN, int(count == 0 or random.random() < 0.3)) if name in STUFF]
    return (things, [str(name) for name in stuff]) if things or stuff else ([str(random.choice(PLAIN))], [])


def clip_optimizer(model: SED, config: TrainConfig) -> torch.optim.Optimizer:
    """The optimizer of what `pretrain_clip` trains: the image tower and the scale of the cosines."""
    for name, parameter in model.clip.named_parameters():
        parameter.requires_grad_(name.startswith("visual.") or name == "logit_scale")
    return adamw(parameter_groups(model.clip, config.clip_lr, weight_decay=0.05))


def pretrain_clip(
    model: SED, config: TrainConfig, optimizer: torch.optim.Optimizer, first: int = 0
) -> Iterator[dict[str, float]]:
    """Train the image tower of `model.clip` in place, its text tower locked, from the step `first` on.

    Yields the metrics of each step. The text tower is locked because it would otherwise merge names that
    the images do not tell apart yet. An image's embedding is the mean over its positions, so that every
    position learns a meaning of its own, as the cost map needs.
    """
    clip = model.clip.train()
    scenes = config.clip_batch // CROPS_PER_SCENE
    count = config.clip_steps * scenes
    crops = CaptionedCrops(count, CROPS_PER_SCENE, config.clip_size, clip.context_length, config.seed)
    unseen = range(first * scenes, count)
    batches = prefetching_loader(crops, config.workers, prefetch=8, batch_size=scenes, sampler=unseen)
    for step, batch in enumerate(batches, first):
        images, tokens, content = (each.flatten(0, 1).to(model.device) for each in batch)
        set_lr(optimizer, step, config.clip_steps, warm_up=100)
        size = config.clip_size if step % 3 == 2 else config.clip_size // 2
        pixels = to_pixels(images, size).contiguous(memory_format=torch.channels_last)
        embed, _ = dense_features(clip.visual, pixels)
        image = F.normalize(embed.mean((2, 3)), dim=-1)
        text = clip.encode_text(tokens, normalize=True)
        same = same_content(content)
        similarity = clip.logit_scale.exp() * image @ text.T
        loss = (contrast(similarity, same) + contrast(similarity.T, same)) / 2
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(clip.visual.parameters(), 1.0)
        optimizer.step()
        clip.logit_scale.data.clamp_(0, MAX_LOGIT_SCALE)
        matched = same.gather(1, similarity.argmax(1, keepdim=True))
        yield {"loss": loss.item(), "matched": matched.float().mean().item()}


def same_content(content: Tensor) -> Tensor:
    """Which crops of a batch show the same categories: bool (N, N) from bool (N, names)."""
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


class CaptionedCrops(Dataset[tuple[Tensor, Tensor, Tensor]]):
    """Several crops of one scene.

    An item is their images, uint8 (N, S, S, 3), their captions' tokens, int64 (N, context length), and which
    categories they show, bool (N, T) over the scenes' vocabulary.
    """

    def __init__(self, length: int, crops: int, size: int, context_length: int, seed: int) -> None:
        self.length, self.crops, self.size = length, crops, size
        self.first = FIRST_SEED + seed * length
        self.context_length = context_length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, Tensor]:
        crops = caption_crops(self.first + index, self.crops, self.size)
        images = np.stack([crop.image for crop in crops])
        content = torch.zeros(len(crops), len(VOCABULARY), dtype=torch.bool)
        for row, crop in zip(content, crops, strict=True):
            row[list(crop.names)] = True
        tokens = tokenizer()([crop.caption for crop in crops], self.context_length)
        return torch.from_numpy(images), tokens, content


@dataclass(frozen=True)
class Crop:
    """A part of a scene.

    Attributes:
        image: uint8 (size, size, 3), RGB.
        caption: a sentence that names what fills a good part of it.
        names: indices into VOCABULARY of what the caption may name, increasing.
    """

    image: NDArray[np.uint8]
    caption: str
    names: tuple[int, ...]


def caption_crops(seed: int, count: int, size: int, scene_size: int = 256) -> list[Crop]:
    """Crops of the training scene of `seed`, most of them around one thing, so that captions teach its kind.

    Args:
        seed: of the scene and of the crops.
        count: how many.
        size: side of a crop, in pixels.
        scene_size: side of the scene they are cut from, in pixels.
    """
    random = np.random.default_rng([seed, CROPS])
    scene = make_scene(seed, scene_size, max_things=3)
    present = np.flatnonzero(np.bincount(scene.labels.ravel())).tolist()
    things = [label for label in present if is_thing(label)]
    crops = []
    for number in range(count):
        around = things[number % len(things)] if things and random.random() < 0.85 else None
        left, top, side = crop_window(scene.labels, around, random)
        box = (left, top, left + side, top + side)
        image = Image.fromarray(scene.image).resize((size, size), Image.Resampling.BILINEAR, box=box)
        labels = scene.labels[top : top + side, left : left + side]
        crops.append(describe(np.asarray(image), labels, random))
    return crops


def is_thing(label: int) -> bool:
    """Whether the category is drawn as an object."""
    return VOCABULARY[label] not in STUFF


def crop_window(
    labels: NDArray[np.uint16], around: int | None, random: np.random.Generator
) -> tuple[int, int, int]:
    """A square inside the scene, (left, top, side), somewhat larger than the thing it is around, if any."""
    whole = labels.shape[0]
    if around is None:
        side = int(random.uniform(0.3, 0.8) * whole)
        left, top = (int(value) for value in random.integers(0, whole - side + 1, 2))
        return left, top, side
    rows, columns = np.nonzero(labels == around)
    extent = max(np.ptp(rows), np.ptp(columns)) + 1
    side = int(np.clip(extent * random.uniform(1.0, 1.6), whole // 4, whole))
    shift = random.uniform(-0.15, 0.15, 2) * side
    middle = ((rows.min() + rows.max()) / 2 + shift[0], (columns.min() + columns.max()) / 2 + shift[1])
    top, left = (int(np.clip(value - side / 2, 0, whole - side)) for value in middle)
    return left, top, side


def describe(image: NDArray[np.uint8], labels: NDArray[np.uint16], random: np.random.Generator) -> Crop:
    """Caption a crop by what fills a good part of it, or by what fills most if nothing does."""
    shares = np.bincount(labels.ravel(), minlength=len(VOCABULARY)) / labels.size
    named = [int(label) for label in np.flatnonzero(shares >= LIMITS)] or [int(shares.argmax())]
    things = [VOCABULARY[label] for label in named if is_thing(label)]
    stuff = [VOCABULARY[label] for label in named if not is_thing(label)]
    # A caption may be incomplete; without the ground, it can be matched by the thing alone.
    if any(thing not in PLAIN_THINGS for thing in things) and random.random() < 0.6:
        stuff = []
        named = [label for label in named if is_thing(label)]
    return Crop(image, caption(things, stuff, random), tuple(named))
