"""Text embeddings of category names: the tokenizer, the prompts, and the cache on disk.

A name's embedding is the mean over its synonyms, for each prompt template. Embeddings are stored on disk by
name, in one file for each text encoder.
"""

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
from ..host import average_prompts, prompt_sentences
from .vocabulary import clean

CACHE_VARIABLE = "SED_TRT_CACHE"
# A killed process loses the embeddings of this time; a shorter one would write to disk after every batch.
STORE_EVERY_S = 2.0

# Called with the number of categories done and their total.
Progress = Callable[[int, int], None]
# Yields the embeddings, float32 (_, P, C), of names in their order, a few names at a time.
Embed = Callable[[Sequence[str]], Iterator[np.ndarray]]

_PADDING_ID = 0
_CACHE_FORMAT = 1
_SCHEMA = "CREATE TABLE IF NOT EXISTS embeddings (name TEXT PRIMARY KEY, checksum INTEGER, embedding BLOB)"
# Another process may hold the file's lock, which it needs for far less time.
_LOCK_TIMEOUT_S = 30.0
# Codes of a file that is damaged or no database of ours, rather than busy, read-only or out of room.
_DAMAGED = frozenset((sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR))

_logger = logging.getLogger(__name__)


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
        tokens = np.full((len(sentences), self.context_length), _PADDING_ID, dtype=np.int64)
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
    # Groups that fill about one batch of the text encoder.
    size = max(1, SENTENCES // len(templates))
    for group in (names[start : start + size] for start in range(0, len(names), size)):
        sentences = prompt_sentences(group, templates)
        yield average_prompts(_embed_sentences(sentences, tokenizer, engine), group, len(templates))


def _embed_sentences(sentences: list[str], tokenizer: SentenceTokenizer, engine: Engine) -> np.ndarray:
    try:
        tokens = tokenizer.encode(sentences)
    except InputError as error:
        raise InputError(f"vocabulary: {error}") from error
    # Synonyms can exceed the batch.
    batches = [tokens[start : start + SENTENCES] for start in range(0, len(tokens), SENTENCES)]
    return np.concatenate([engine.run({"tokens": batch})["embedding"] for batch in batches])


def cache_folder() -> Path:
    """The folder of the environment variable SED_TRT_CACHE, else sed-trt's folder in the user's cache."""
    chosen = os.environ.get(CACHE_VARIABLE)
    return Path(chosen) if chosen else platformdirs.user_cache_path("sed-trt")


class TextCache:
    """The embeddings that one text encoder made of category names, on disk.

    Several threads and processes may use one at once; a process that is killed damages nothing. A file that
    cannot be read counts as empty, and one that cannot be written is logged; neither is an error.

    Attributes:
        path: an SQLite database; it may be deleted whenever no process uses it.
        shape: P templates and C values of the embedding of one name, float32.
    """

    def __init__(self, digest: str, shape: tuple[int, int]) -> None:
        """Choose the file; nothing is read or written yet.

        Args:
            digest: hexadecimal SHA-256 of all that embeddings depend on besides the name: the text encoder's
                weights, its tokenizer, the templates. Equal digests share a file.
            shape: (P, C) of the embedding of one name.
        """
        self.path = cache_folder() / "text" / f"{digest[:32]}.sqlite"
        self.shape = shape

    @classmethod
    def of_bundle(cls, manifest: Manifest) -> "TextCache":
        """The cache of a bundle; bundles with the same text graph, tokenizer and templates share it."""
        contents = [
            _CACHE_FORMAT,
            manifest.files[manifest.stages["text"].file].sha256,
            manifest.files[TOKENIZER_FILE].sha256,
            manifest.templates,
        ]
        digest = hashlib.sha256(json.dumps(contents).encode()).hexdigest()
        return cls(digest, (len(manifest.templates), manifest.embed_dim))

    def load(self, names: Sequence[str]) -> tuple[np.ndarray, list[int]]:
        """Read the embeddings of T names.

        Returns:
            Their embeddings, float32 (T, P, C), and the rising positions of the names that are missing or
            whose embedding is damaged; the rows at these positions are undefined.
        """
        text = np.empty((len(names), *self.shape), np.float32)
        everything = list(range(len(names)))
        if not is_file(self.path):
            return text, everything
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
                        text[position] = np.frombuffer(row[1], "<f4").reshape(self.shape)
        except (OSError, sqlite3.Error) as error:
            _logger.info("%s: cannot be read (%s); its embeddings are made again", self.path, error)
            return text, everything
        return text, missing

    def store(self, names: Sequence[str], text: np.ndarray) -> bool:
        """Write the embeddings, float32 (T, P, C), of T names: all of them or, if that fails, none.

        Returns:
            Whether they were written.
        """
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # SQLite's own lock does not cover the removal of a damaged file.
            with FileLock(self.path.with_suffix(".lock"), timeout=_LOCK_TIMEOUT_S):
                try:
                    self._insert(names, text)
                except sqlite3.Error as error:
                    if not _is_damage(error):
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
        # SQLite would apply a journal that is left to the new file.
        for path in (self.path.with_name(f"{self.path.name}-journal"), self.path):
            path.unlink(missing_ok=True)

    def _open(self, mode: str) -> sqlite3.Connection:
        return sqlite3.connect(
            f"{self.path.absolute().as_uri()}?mode={mode}", timeout=_LOCK_TIMEOUT_S, uri=True
        )


def _is_damage(error: sqlite3.Error) -> bool:
    # The low byte is the kind of an error, the others its details. Other errors of input and output than a
    # file that ends early are those of the disk.
    code = error.sqlite_errorcode
    return code & 0xFF in _DAMAGED or code == sqlite3.SQLITE_IOERR_SHORT_READ


def _is_whole(checksum: object, content: object, size: int) -> bool:
    return isinstance(content, bytes) and len(content) == size and zlib.crc32(content) == checksum


def cached_embeddings(
    names: Sequence[str], cache: TextCache, embed: Embed, progress: Progress | None = None
) -> np.ndarray:
    """Read the embeddings of T names from `cache`, and embed and store those that it lacks.

    Args:
        names: category names.
        cache: embeddings are stored every `STORE_EVERY_S` seconds and at the end, also when `embed` raises,
            so that the next call embeds only the rest.
        embed: called once with the missing names, and not at all when there are none.
        progress: called after each group of names with the names done, those of the cache included, and T.

    Returns:
        float32 (T, P, C).
    """
    text, missing = cache.load(names)
    if not missing:
        return text
    stored = done = 0
    writable = True

    def store() -> None:
        nonlocal stored, writable
        positions = missing[stored:done]
        # One warning about a cache that cannot be written is enough.
        if positions and writable:
            writable = cache.store([names[position] for position in positions], text[positions])
        stored = done

    latest = time.monotonic()
    try:
        for rows in embed([names[position] for position in missing]):
            text[missing[done : done + len(rows)]] = rows
            done += len(rows)
            if progress is not None:
                progress(len(names) - len(missing) + done, len(names))
            if time.monotonic() - latest >= STORE_EVERY_S:
                store()
                latest = time.monotonic()
    finally:
        store()
    return text
