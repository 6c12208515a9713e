"""Category names to text embeddings, by the recipe of SED (Xie et al., CVPR 2024) and CLIP before it."""

from collections.abc import Iterator, Sequence

import numpy as np

from ..engines.engine import Engine
from ..engines.profiles import SENTENCES
from ..errors import InputError
from .tokenizer import SentenceTokenizer
from .vocabulary import synonyms


def embed_names(
    names: Sequence[str],
    templates: Sequence[str],
    tokenizer: SentenceTokenizer,
    engine: Engine,
) -> Iterator[np.ndarray]:
    """Unit-length embeddings of names under P templates, in order, a few names at a time: float32 (_, P, C).

    Per template every synonym's sentence is embedded to unit length; their mean is brought to unit length
    again. `engine` runs the stage `text`.

    Raises:
        InputError: a name is too long for the text encoder once it stands in a template.
    """
    for group in _groups(names, len(templates)):
        sentences = [
            template.replace("{}", word)
            for name in group
            for word in synonyms(name)
            for template in templates
        ]
        embedded = _embed_sentences(sentences, tokenizer, engine)
        rows, start = [], 0
        for name in group:
            count = len(synonyms(name)) * len(templates)
            per_synonym = embedded[start : start + count].reshape(-1, len(templates), embedded.shape[-1])
            mean = per_synonym.mean(axis=0)
            rows.append(mean / np.linalg.norm(mean, axis=-1, keepdims=True))
            start += count
        yield np.stack(rows).astype(np.float32, copy=False)


def _groups(names: Sequence[str], templates: int) -> Iterator[list[str]]:
    """Split names so that each group fills about one batch; a name is never split."""
    group: list[str] = []
    sentences = 0
    for name in names:
        count = len(synonyms(name)) * templates
        if group and sentences + count > SENTENCES:
            yield group
            group, sentences = [], 0
        group.append(name)
        sentences += count
    yield group


def _embed_sentences(sentences: list[str], tokenizer: SentenceTokenizer, engine: Engine) -> np.ndarray:
    try:
        tokens = tokenizer.encode(sentences)
    except InputError as error:
        raise InputError(f"vocabulary: {error}") from error
    # A single name with many synonyms can exceed the batch.
    batches = [tokens[start : start + SENTENCES] for start in range(0, len(tokens), SENTENCES)]
    return np.concatenate([engine.run({"tokens": batch})["embedding"] for batch in batches])
