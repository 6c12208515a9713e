"""Text pre-training: captions that share words come to lie near each other."""

from collections.abc import Iterator

import numpy as np
import open_clip
import torch

from ..model import SED
from .config import TrainConfig
from .optimizer import adamw, parameter_groups, set_lr
from .scenes import COLOURS, SEEN, STUFF
from .scenes.captions import caption

COLOURED = [name for name in SEEN if name.split()[0] in COLOURS]
PLAIN = [name for name in SEEN if name.split()[0] not in COLOURS]


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

    Yields the metrics of each step. The cosine of two captions is drawn to that of the sets of words they
    name. Contrast with pictures alone starts at a saddle: the pictures do not tell kinds of things apart, so
    the captions need not, and vice versa. It also makes names compose: a colour and thing never named
    together lie where they belong.
    """
    clip = model.clip.train()
    words = sorted({word for name in SEEN for word in name.split()})
    column = {word: index for index, word in enumerate(words)}
    tokenizer = open_clip.SimpleTokenizer(context_length=clip.context_length)
    for step in range(first, config.text_steps):
        random = np.random.default_rng([config.seed, 3, step])
        set_lr(optimizer, step, config.text_steps, warm_up=30)
        named = [draw_names(random) for _ in range(config.text_batch)]
        sentences = [caption(things, stuff, random) for things, stuff in named]
        content = torch.zeros(len(named), len(words), device=model.device)
        for row, (things, stuff), sentence in zip(content, named, sentences, strict=True):
            for name in things + stuff:
                # A caption may leave the stuff out.
                if name in sentence:
                    row[[column[word] for word in name.split()]] = 1
        target = torch.nn.functional.normalize(content, dim=1)
        embedding = clip.encode_text(tokenizer(sentences).to(model.device), normalize=True)
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
