"""A vocabulary: category names with their embeddings, and where the names come from."""

import html
import json
import threading
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import ftfy
import numpy as np

from ..engines.engine import Engines, Value
from ..errors import InputError
from ..files import is_file
from .vocabularies import published, published_names


def clean(text: str) -> str:
    """Mend mojibake, resolve HTML entities, collapse white space and lower the case, as open_clip does."""
    return " ".join(html.unescape(html.unescape(ftfy.fix_text(text))).split()).lower()


MAX_NAME_LENGTH = 1000
# Label maps are uint16.
MAX_CATEGORIES = 65535


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """Category names and their unit-length text embeddings, float32 (T, P, C): T categories, P templates."""

    names: tuple[str, ...]
    text: np.ndarray

    def __len__(self) -> int:
        return len(self.names)


def synonyms(name: str) -> list[str]:
    """The synonyms that a category name holds, which ", " separates."""
    return name.split(", ")


def checked_names(names: Sequence[str]) -> tuple[str, ...]:
    """The names without surrounding white space.

    Raises:
        InputError: no names or too many, or one is no text, blank, over `MAX_NAME_LENGTH` characters, holds a
            blank synonym, or says the same as an earlier one.
    """
    if isinstance(names, str):
        raise InputError(f"vocabulary: is the single text {names!r:.60}, expected a list of names")
    if not names:
        raise InputError("vocabulary: holds no category names, expected at least one")
    if len(names) > MAX_CATEGORIES:
        raise InputError(f"vocabulary: holds {len(names)} categories, expected at most {MAX_CATEGORIES}")
    seen: dict[str, int] = {}
    for number, name in enumerate(names, 1):
        _check_name(name, number)
        first = seen.setdefault(clean(name), number)
        if first != number:
            raise InputError(
                f"vocabulary: category {number}, {name!r:.60}, is a duplicate of category {first}; "
                "remove one of them"
            )
    return tuple(name.strip() for name in names)


def _check_name(name: str, number: int) -> None:
    where = f"vocabulary: category {number}"
    if not isinstance(name, str):
        raise InputError(f"{where} is {name!r:.60}, expected text")
    if len(name) > MAX_NAME_LENGTH:
        raise InputError(
            f"{where}, {name[:30]!r}…, has {len(name)} characters, expected at most {MAX_NAME_LENGTH}"
        )
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise InputError(f"{where}, {name!r:.60}, is not valid Unicode; save the list as UTF-8") from error
    if not clean(name):
        raise InputError(f"{where} is blank; give it a name or remove it")
    if not all(clean(synonym) for synonym in synonyms(name)):
        raise InputError(f"{where}, {name!r:.60}, holds a blank synonym; remove the surplus comma")


def read_vocabulary(given: str | Path) -> list[str]:
    """Category names of a published vocabulary, of a text file (one name per line) or of a JSON list.

    Blank lines of a text file are skipped.

    Raises:
        InputError: neither a published name nor a file, or the file is not UTF-8 text or not a list of names.
    """
    path = Path(given)
    if str(given) in published_names():
        return published(str(given))
    if not is_file(path):
        raise InputError(
            f"vocabulary: {str(given)!r:.60} is neither a file nor a published vocabulary; "
            f"give a file or one of {', '.join(published_names())}"
        )
    try:
        # Editors on Windows put a byte-order mark before the first name.
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as UTF-8 text ({error}); save it as UTF-8") from error
    names = _from_json(text, path) if path.suffix.lower() == ".json" else _from_lines(text)
    if not names:
        raise InputError(f"{path}: holds no category names, expected one per line or a JSON list")
    return names


def _from_lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]


def _from_json(text: str, path: Path) -> list[str]:
    try:
        names = json.loads(text)
    except ValueError as error:
        raise InputError(f"{path}: is not JSON ({error}); write a list of names") from error
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise InputError(f'{path}: is not a list of names; write them as ["sky", "tree"]')
    return names


class Categories(Protocol):
    """What decoding needs of a vocabulary."""

    @property
    def names(self) -> tuple[str, ...]:
        """The T category names."""

    @property
    def text(self) -> Value:
        """Their embeddings, float32 (T, P, C), on the host or where the backend computes."""


@dataclass(frozen=True, eq=False)
class HeldVocabulary:
    """A vocabulary whose embeddings, float32 (T, P, C), are where a backend computes."""

    names: tuple[str, ...]
    text: Value


class HeldVocabularies:
    """The vocabularies that one set of engines was given; each is held as long as its user keeps it."""

    def __init__(self, engines: Engines) -> None:
        self._engines = engines
        self._held: weakref.WeakKeyDictionary[Vocabulary, HeldVocabulary] = weakref.WeakKeyDictionary()
        self._lock = threading.Lock()

    def __call__(self, vocabulary: Vocabulary) -> HeldVocabulary:
        """The vocabulary on the backend; raises InputError when a device has no room for it."""
        with self._lock:
            held = self._held.get(vocabulary)
            if held is None:
                held = HeldVocabulary(vocabulary.names, self._engines.to_device(vocabulary.text))
                self._held[vocabulary] = held
            return held
