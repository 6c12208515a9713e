"""Embeddings from the cache where it has them; the others are made, and kept as they are made."""

import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from .text_cache import TextCache

# Called with the categories done and their total.
Progress = Callable[[int, int], None]
Embed = Callable[[Sequence[str]], Iterator[np.ndarray]]

# What an interruption can cost, against a write to disk after every batch.
KEEP_EVERY_S = 2.0


def cached_embeddings(
    names: Sequence[str],
    shape: tuple[int, int, int],
    cache: TextCache,
    embed: Embed,
    progress: Progress | None = None,
) -> np.ndarray:
    """Embeddings of T names, float32 of `shape` (T, P, C).

    Args:
        names: what to embed.
        shape: of the result.
        cache: read first; what is made goes there every `KEEP_EVERY_S` seconds and when the work ends, by an
            exception too.
        embed: makes the embeddings of names in order, a few at a time; called only when some are missing.
        progress: called after each few with the names done, those of the cache included, and T.
    """
    text = np.empty(shape, np.float32)
    missing = cache.load(names, text)
    if not missing:
        return text
    kept = done = 0
    writable = True

    def keep() -> None:
        nonlocal kept, writable
        positions = missing[kept:done]
        # One warning about a cache that cannot be written is enough.
        if positions and writable:
            writable = cache.store([names[position] for position in positions], text[positions])
        kept = done

    latest = time.monotonic()
    try:
        for rows in embed([names[position] for position in missing]):
            text[missing[done : done + len(rows)]] = rows
            done += len(rows)
            if progress is not None:
                progress(len(names) - len(missing) + done, len(names))
            if time.monotonic() - latest >= KEEP_EVERY_S:
                keep()
                latest = time.monotonic()
    finally:
        keep()
    return text
