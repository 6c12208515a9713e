"""A vocabulary: the category names to look for, with their embeddings."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import InputError
from .tokenizer import clean

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
