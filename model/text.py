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

    Duplicates are not refused.

    Args:
        clip: its text tower is used.
        names: T category names; ", " separates synonyms.
        templates: P sentences with one `{}`.
        batch: sentences per run of the text tower.
        progress: called with (sentences done, sentences in all).

    Returns:
        Unit vectors, float32 (T, P, C).

    Raises:
        InputError: no names, an empty one, or one too long for the text tower once it stands in a template.
    """
    if not names:
        raise InputError("the vocabulary is empty; give at least one category name")
    synonyms = [[word.strip() for word in name.split(SYNONYM_SEPARATOR)] for name in names]
    for position, words in enumerate(synonyms):
        if not all(words):
            raise InputError(
                f"category {position} ({names[position]!r}) has an empty name or synonym; name it"
            )
    sentences = [template.format(word) for words in synonyms for template in templates for word in words]
    tokens = tokenized(sentences, clip.context_length).to(clip.token_embedding.weight.device)
    parts = []
    for start in range(0, len(sentences), batch):
        parts.append(clip.encode_text(tokens[start : start + batch], normalize=True).float())
        if progress is not None:
            progress(min(start + batch, len(sentences)), len(sentences))
    embedded = torch.cat(parts)
    means, start = [], 0
    for words in synonyms:
        count = len(templates) * len(words)
        means.append(embedded[start : start + count].unflatten(0, (len(templates), len(words))).mean(1))
        start += count
    return F.normalize(torch.stack(means), dim=-1)


def tokenized(sentences: Sequence[str], context_length: int) -> Tensor:
    """Token ids, int64 (N, context_length): start, sentence, end, zeros.

    Raises:
        InputError: a sentence has more tokens.
    """
    # The tokenizer cuts what is too long without a word; one column more shows where it would.
    tokens: Tensor = open_clip.SimpleTokenizer(context_length=context_length + 1)(list(sentences))
    cut = tokens[:, -1].nonzero().flatten().tolist()
    if cut:
        raise InputError(
            f"the sentence {sentences[cut[0]]!r:.60} has more than the {context_length} tokens "
            "that the text encoder reads; shorten the name"
        )
    return tokens[:, :-1]
