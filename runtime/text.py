"""Category names to text embeddings: tokens, prompts, and the cache on disk."""

import hashlib
import json
import logging
import os
import sqlite3
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
import platformdirs
from filelock import FileLock
from tokenizers import Tokenizer

from ..bundle import TOKENIZER_FILE, Bundle, Manifest
from ..engines.engine import Engine
from ..engines.profiles import SENTENCES
from ..errors import InputError
from ..files import is_file
from .vocabulary import clean, synonyms

PADDING_ID = 0


class SentenceTokenizer:
    """The tokenizer of a bundle."""

    def __init__(self, bundle: Bundle) -> None:
        """Read the bundle's tokenizer; raises InputError when it is missing, altered or cannot be read."""
        path = bundle.verified(TOKENIZER_FILE)
        try:
            self._tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:
            # The tokenizers library raises plain Exception.
            raise InputError(
                f"{path}: is no tokenizer file ({error}); export the checkpoint again"
            ) from error
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self.context_length = bundle.manifest.context_length

    def encode(self, sentences: Sequence[str]) -> np.ndarray:
        """Token ids, int64 (N, context_length): start, sentence, end, zeros.

        Raises:
            InputError: a sentence has more tokens than the text encoder reads.
        """
        tokens = np.full((len(sentences), self.context_length), PADDING_ID, dtype=np.int64)
        encodings = self._tokenizer.encode_batch([clean(sentence) for sentence in sentences])
        for row, encoding, sentence in zip(tokens, encodings, sentences, strict=True):
            if len(encoding.ids) > self.context_length:
                shown = sentence if len(sentence) <= 60 else f"{sentence[:59]}…"
                raise InputError(
                    f"the sentence {shown!r} has {len(encoding.ids)} tokens, "
                    f"the text encoder reads {self.context_length}; shorten the name"
                )
            row[: len(encoding.ids)] = encoding.ids
        return tokens


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


CACHE_VARIABLE = "SED_TRT_CACHE"

_FORMAT = 1
_SCHEMA = "CREATE TABLE IF NOT EXISTS embeddings (name TEXT PRIMARY KEY, checksum INTEGER, embedding BLOB)"
# Another process may hold the file; what it keeps in one go takes far less.
_PATIENCE_S = 30.0
# Codes that say the file is damaged or none of ours, rather than busy, read-only or out of room.
_DAMAGED = frozenset((sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR))

_logger = logging.getLogger(__name__)


def cache_folder() -> Path:
    """The folder of the environment variable SED_TRT_CACHE, else sed-trt's folder in the user's cache."""
    chosen = os.environ.get(CACHE_VARIABLE)
    return Path(chosen) if chosen else platformdirs.user_cache_path("sed-trt")


class TextCache:
    """The embeddings that a bundle's text encoder has made. Safe to use from several processes at once.

    Bundles with the same text graph, tokenizer and templates share them. What cannot be read is missing, and
    what cannot be written is logged; neither is an error.

    Attributes:
        path: an SQLite database; it may be deleted at any time that nobody uses it.
    """

    def __init__(self, manifest: Manifest) -> None:
        recipe = [
            _FORMAT,
            manifest.files[manifest.stages["text"].file].sha256,
            manifest.files[TOKENIZER_FILE].sha256,
            manifest.templates,
        ]
        key = hashlib.sha256(json.dumps(recipe).encode()).hexdigest()
        self.path = cache_folder() / "text" / f"{key[:32]}.sqlite"

    def load(self, names: Sequence[str], text: np.ndarray) -> list[int]:
        """Fill the rows of `text`, float32 (T, P, C), of the T names that are kept.

        Returns:
            Rising positions of the names that are missing, or whose embedding is damaged.
        """
        if not is_file(self.path):
            return list(range(len(names)))
        missing: list[int] = []
        try:
            with closing(self._open("rw")) as database:
                for position, name in enumerate(names):
                    row = database.execute(
                        "SELECT checksum, embedding FROM embeddings WHERE name = ?", (name,)
                    ).fetchone()
                    if row is None or not _is_whole(row[0], row[1], text[position].nbytes):
                        missing.append(position)
                    else:
                        text[position] = np.frombuffer(row[1], "<f4").reshape(text.shape[1:])
        except (OSError, sqlite3.Error) as error:
            _logger.info("%s: cannot be read (%s); its embeddings are made again", self.path, error)
            return list(range(len(names)))
        return missing

    def store(self, names: Sequence[str], text: np.ndarray) -> bool:
        """Keep the embeddings, float32 (T, P, C), of T names: all of them or, if that fails, none.

        Returns:
            Whether they are kept.
        """
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # SQLite's own lock does not cover the removal of a damaged file.
            with FileLock(self.path.with_suffix(".lock"), timeout=_PATIENCE_S):
                try:
                    self._insert(names, text)
                except sqlite3.Error as error:
                    if not _tells_of_damage(error):
                        raise
                    self._remove()
                    self._insert(names, text)
        except (OSError, sqlite3.Error) as error:
            _logger.warning("text embeddings are not cached: %s", error)
            return False
        return True

    def _insert(self, names: Sequence[str], text: np.ndarray) -> None:
        with closing(self._open("rwc")) as database, database:
            database.execute(_SCHEMA)
            for name, embedding in zip(names, text, strict=True):
                content = embedding.astype("<f4", copy=False).tobytes()
                database.execute(
                    "INSERT OR REPLACE INTO embeddings VALUES (?, ?, ?)", (name, zlib.crc32(content), content)
                )

    def _remove(self) -> None:
        # A journal that is left would be played into the new file.
        for path in (self.path.with_name(f"{self.path.name}-journal"), self.path):
            path.unlink(missing_ok=True)

    def _open(self, mode: str) -> sqlite3.Connection:
        return sqlite3.connect(f"{self.path.absolute().as_uri()}?mode={mode}", timeout=_PATIENCE_S, uri=True)


def _tells_of_damage(error: sqlite3.Error) -> bool:
    # The low byte is the kind of an error, the others its details. Other errors of input and output than a
    # file that ends early are those of the disk.
    code = error.sqlite_errorcode
    return code & 0xFF in _DAMAGED or code == sqlite3.SQLITE_IOERR_SHORT_READ


def _is_whole(checksum: object, content: object, size: int) -> bool:
    return isinstance(content, bytes) and len(content) == size and zlib.crc32(content) == checksum


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
