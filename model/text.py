"""From category names to the prompt embeddings the cost map is made of."""

from collections.abc import Callable, Sequence

import open_clip
import torch
import torch.nn.functional as F
from open_clip.model import CLIP
from torch import Tensor

from ..errors import InputError
from .presets import Preset

SYNONYM_SEPARATOR = ", "


def templates_of(preset: Preset) -> tuple[str, ...]:
    """The prompt templates of `preset`, each with one `{}`."""
    if preset.templates is not None:
        return preset.templates
    return tuple(template("{}") for template in open_clip.OPENAI_IMAGENET_TEMPLATES)


def encode_vocabulary(
    clip: CLIP,
    names: Sequence[str],
    templates: Sequence[str],
    batch: int = 512,
    progress: Callable[[int, int], None] | None = None,
) -> Tensor:
    """Embed category names: per template every synonym is embedded and normalised, then their mean is.

    Args:
        clip: its text tower is used.
        names: T category names; ", " separates synonyms.
        templates: P sentences with one `{}`.
        batch: sentences per run of the text tower.
        progress: called with (sentences done, sentences in all).

    Returns:
        Unit vectors, float32 (T, P, C).

    Raises:
        InputError: no names, or an empty one.
    """
    if not names:
        raise InputError("the vocabulary is empty; give at least one category name")
    synonyms = [[word.strip() for word in name.split(SYNONYM_SEPARATOR)] for name in names]
    for position, words in enumerate(synonyms):
        if not all(words):
            raise InputError(
                f"category {position} ({names[position]!r}) has an empty name or synonym; name it"
            )
    tokenizer = open_clip.SimpleTokenizer(context_length=clip.context_length)
    sentences = [template.format(word) for words in synonyms for template in templates for word in words]
    device = clip.token_embedding.weight.device
    parts = []
    for start in range(0, len(sentences), batch):
        tokens = tokenizer(sentences[start : start + batch]).to(device)
        parts.append(clip.encode_text(tokens, normalize=True).float())
        if progress is not None:
            progress(min(start + batch, len(sentences)), len(sentences))
    embedded = torch.cat(parts)
    means, start = [], 0
    for words in synonyms:
        count = len(templates) * len(words)
        means.append(embedded[start : start + count].unflatten(0, (len(templates), len(words))).mean(1))
        start += count
    return F.normalize(torch.stack(means), dim=-1)
