"""From category names to the prompt embeddings that the cost map compares positions with."""

from collections.abc import Callable, Sequence
from functools import cache

import open_clip
import torch
from open_clip.model import CLIP
from torch import Tensor

from ..errors import InputError
from ..host import average_prompts, prompt_sentences, synonyms
from .presets import Preset

BATCH = 512


def templates_of(preset: Preset) -> tuple[str, ...]:
    """The prompt templates of `preset`, each with one `{}`."""
    if preset.templates is not None:
        return preset.templates
    return tuple(template("{}") for template in open_clip.OPENAI_IMAGENET_TEMPLATES)


@torch.no_grad()
def encode_vocabulary(
    clip: CLIP,
    names: Sequence[str],
    templates: Sequence[str],
    progress: Callable[[int, int], None] | None = None,
) -> Tensor:
    """Embed category names: embed each synonym's sentence, average over the synonyms of each template.

    Duplicates are accepted.

    Args:
        clip: the model whose text tower embeds.
        names: T category names; ", " separates synonyms.
        templates: P sentences with one `{}`.
        progress: called with (sentences done, sentences in all).

    Returns:
        Unit vectors, float32 (T, P, C), on the device of `clip`.

    Raises:
        InputError: no names, an empty one, or one too long for the text tower once it stands in a template.
    """
    if not names:
        raise InputError("the vocabulary is empty; give at least one category name")
    for position, name in enumerate(names):
        if not all(synonyms(name)):
            raise InputError(f"category {position} ({name!r}) has an empty name or synonym; name it")
    sentences = prompt_sentences(names, templates)
    device = clip.token_embedding.weight.device
    tokens = tokenize(sentences, clip.context_length).to(device)
    parts = []
    for batch in tokens.split(BATCH):
        parts.append(clip.encode_text(batch, normalize=True).float())
        if progress is not None:
            progress(sum(map(len, parts)), len(sentences))
    embedded = torch.cat(parts).cpu().numpy()
    return torch.from_numpy(average_prompts(embedded, names, len(templates))).to(device)


@cache
def tokenizer() -> open_clip.SimpleTokenizer:
    """open_clip's tokenizer of all presets, which takes a sixth of a second to build."""
    return open_clip.SimpleTokenizer()


def tokenize(sentences: Sequence[str], context_length: int) -> Tensor:
    """Token ids, int64 (N, context_length): start, sentence, end, zeros.

    Raises:
        InputError: a sentence has more tokens.
    """
    # The tokenizer cuts what is too long without an error; one column more shows where it would.
    tokens: Tensor = tokenizer()(list(sentences), context_length + 1)
    too_long = tokens[:, -1].nonzero().flatten().tolist()
    if too_long:
        raise InputError(
            f"the sentence {sentences[too_long[0]]!r:.60} has more than the {context_length} tokens "
            "that the text encoder reads; shorten the name"
        )
    return tokens[:, :-1]
