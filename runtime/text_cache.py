"""Text embeddings kept on disk by name, one file for each way to make them."""

import hashlib
import json
import logging
import os
import sqlite3
import zlib
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
import platformdirs
from filelock import FileLock

from ..engines.bundle import TOKENIZER_FILE, Manifest
from ..paths import is_file

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
