"""Text embeddings where the backend computes, put there once per vocabulary."""

import threading
import weakref
from dataclasses import dataclass
from typing import Protocol

from ..engines.backends import Engines
from ..engines.engine import Value
from .vocabulary import Vocabulary


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
                held = HeldVocabulary(vocabulary.names, self._engines.hold(vocabulary.text))
                self._held[vocabulary] = held
            return held
