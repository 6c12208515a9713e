"""Vocabularies: category names, the files and texts they come from, and their text embeddings."""

import html
import json
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from weakref import WeakKeyDictionary

import ftfy
import numpy as np

from ..engines.engine import Engines, Value
from ..errors import InputError
from ..files import is_file
from ..host import synonyms
from ..stages import FOLD

MAX_NAME_LENGTH = 1000
# Label maps are uint16.
MAX_CATEGORIES = 65535
# Most bytes that a folded vocabulary may take: 9320 categories of sed-b in half precision, 4660 in FP32.
FOLD_LIMIT = 10 << 28
# Categories that are folded at a time, which bounds the memory for it.
_FOLD_PART = 128
# One file for each published vocabulary.
_PUBLISHED = resources.files(__package__) / "vocabularies"


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """Category names and their text embeddings.

    Attributes:
        names: T categories; ", " separates the synonyms of one.
        text: unit vectors under each of P prompt templates, float32 (T, P, C).
    """

    names: tuple[str, ...]
    text: np.ndarray
    _on_device: WeakKeyDictionary[Engines, Value] = field(
        default_factory=WeakKeyDictionary, init=False, repr=False
    )
    _folded: WeakKeyDictionary[Engines, Mapping[str, np.ndarray] | None] = field(
        default_factory=WeakKeyDictionary, init=False, repr=False
    )
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False)

    def __len__(self) -> int:
        return len(self.names)

    @property
    def nbytes(self) -> int:
        """Bytes of the embeddings and of their copies and folded forms, on the host and on devices."""
        with self._lock:
            copies = [value for value in self._on_device.values() if value is not self.text]
            folded = [array for each in self._folded.values() if each for array in each.values()]
            return self.text.nbytes + sum(value.nbytes for value in (*copies, *folded))

    def __reduce__(self) -> tuple[type, tuple[object, ...]]:
        """Copies and pickles hold no device memory."""
        return Vocabulary, (self.names, self.text)

    def on_device(self, engines: Engines) -> Value:
        """The embeddings where `engines` compute.

        They are copied there on the first call and released with this vocabulary or with the engines.

        Raises:
            InputError: the device's memory is too small.
        """
        with self._lock:
            if engines not in self._on_device:
                self._on_device[engines] = engines.to_device(self.text)
            return self._on_device[engines]

    def folded(self, engines: Engines) -> Mapping[str, np.ndarray] | None:
        """The outputs of the stage `fold` by name, which `scout_folded` takes, where `engines` use it.

        They are computed on the first call and released with this vocabulary or with the engines. They take
        225 C values for each category, in the precision that the engines compute in.

        Returns:
            None where the engines do not fold, or where they would take more than `FOLD_LIMIT` bytes.
        """
        if not engines.folds_vocabularies:
            return None
        with self._lock:
            if engines not in self._folded:
                self._folded[engines] = _fold(self.text, engines)
            return self._folded[engines]


def _fold(text: np.ndarray, engines: Engines) -> Mapping[str, np.ndarray] | None:
    """See `Vocabulary.folded`."""
    folded: dict[str, np.ndarray] = {}
    axes = {tensor.name: next(iter(tensor.dynamic_axes)) for tensor in FOLD.outputs}
    for start in range(0, len(text), _FOLD_PART):
        outputs = engines[FOLD.name].run({"text": text[start : start + _FOLD_PART]})
        if start == 0:
            part = min(_FOLD_PART, len(text))
            if sum(values.nbytes for values in outputs.values()) // part * len(text) > FOLD_LIMIT:
                return None
            for name, values in outputs.items():
                shape = list(values.shape)
                shape[axes[name]] = len(text)
                folded[name] = np.empty(shape, values.dtype)
        for name, values in outputs.items():
            rows = slice(start, start + _FOLD_PART)
            folded[name][(slice(None),) * axes[name] + (rows,)] = values
    return folded


@dataclass(eq=False)
class _Slot:
    """A place for one vocabulary, whose lock is taken while it is embedded."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    vocabulary: Vocabulary | None = None


class VocabularyCache:
    """The vocabularies used last, by their names. Safe to use from several threads.

    Threads that ask for different vocabularies neither wait for nor displace each other as long as there are
    no more than `size` of them; of several threads that ask for the same one, the first embeds it.
    """

    def __init__(self, size: int) -> None:
        """Keep `size` vocabularies, at least 1."""
        self._size = size
        # From the one used longest ago to the one used last.
        self._slots: dict[tuple[str, ...], _Slot] = {}
        self._lock = threading.Lock()

    def get(self, names: tuple[str, ...], embed: Callable[[], Vocabulary]) -> Vocabulary:
        """The vocabulary of these names; `embed` makes it, and its exceptions are raised here."""
        with self._lock:
            slot = self._slots.pop(names, None) or _Slot()
            self._slots[names] = slot
        with slot.lock:
            if slot.vocabulary is None:
                try:
                    slot.vocabulary = embed()
                finally:
                    self._evict(names, slot)
            return slot.vocabulary

    def _evict(self, names: tuple[str, ...], slot: _Slot) -> None:
        """Forget `slot` if embedding failed, else the vocabularies beyond `size`, those under way apart."""
        with self._lock:
            complete = [key for key, each in self._slots.items() if each.vocabulary is not None]
            surplus = complete[: -self._size]
            if slot.vocabulary is None and self._slots.get(names) is slot:
                surplus.append(names)
            for key in surplus:
                del self._slots[key]


def parse_names(text: str) -> list[str]:
    """Category names that a text lists.

    Where the text holds ";" or a line break, these separate categories, and commas separate the synonyms of
    one: "tree, trees; car" are two categories. Otherwise commas separate categories: "sky, tree, car" are
    three. Blank lines and a separator at the end of a line or category are ignored.

    Returns:
        Names with synonyms separated by ", ", as they stand: `checked_names` refuses blank ones.
    """
    stripped = text.strip()
    if ";" in stripped or len(stripped.splitlines()) > 1:
        return _parse_lines(stripped)
    return _split(stripped, ",") if stripped else []


def _parse_lines(text: str) -> list[str]:
    """Category names that line breaks and ";" separate, with synonyms that commas separate."""
    entries = [entry for line in text.splitlines() if line.strip() for entry in _split(line, ";")]
    return [", ".join(_split(entry, ",")) for entry in entries]


def _split(text: str, separator: str) -> list[str]:
    return [part.strip() for part in text.strip().removesuffix(separator).split(separator)]


def read_vocabulary(source: str | Path) -> list[str]:
    """Category names of a published vocabulary such as "ade150", or of a file.

    A text file lists one category per line, or several separated by ";"; commas separate the synonyms of one,
    and blank lines are ignored. A file named *.json holds a list of names, in which ", " separates synonyms.

    Raises:
        InputError: neither a published name nor a file, or the file is not UTF-8 text or not a list of names.
    """
    path = Path(source)
    if str(source) in published_names():
        return published(str(source))
    if not is_file(path):
        raise InputError(
            f"vocabulary: {str(source)!r:.60} is neither a file nor a published vocabulary; "
            f"give a file or one of {', '.join(published_names())}"
        )
    try:
        # Editors on Windows put a byte-order mark before the first name.
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as UTF-8 text ({error}); save it as UTF-8") from error
    names = _parse_json(text, path) if path.suffix.lower() == ".json" else _parse_lines(text)
    if not names:
        raise InputError(f"{path}: holds no category names, expected one per line or a JSON list")
    return names


def _parse_json(text: str, path: Path) -> list[str]:
    try:
        names = json.loads(text)
    except ValueError as error:
        raise InputError(f"{path}: is not JSON ({error}); write a list of names") from error
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise InputError(f'{path}: is not a list of names; write them as ["sky", "tree"]')
    return names


def published_names() -> list[str]:
    """Names that `published` knows, sorted."""
    return sorted(Path(file.name).stem for file in _PUBLISHED.iterdir() if file.name.endswith(".json"))


def published(name: str) -> list[str]:
    """Category names of a vocabulary of the published evaluation, such as "ade150".

    Raises:
        InputError: there is no vocabulary of this name.
    """
    if name not in published_names():
        raise InputError(f"vocabulary: {name!r} is unknown; choose one of {', '.join(published_names())}")
    names: list[str] = json.loads((_PUBLISHED / f"{name}.json").read_text(encoding="utf-8"))
    return names


def checked_names(names: Sequence[str]) -> tuple[str, ...]:
    """The names without surrounding white space; a text is read by `parse_names`.

    Raises:
        InputError: no names or too many, or one is no text, blank, over `MAX_NAME_LENGTH` characters, holds a
            blank synonym, or is equal to an earlier one up to upper and lower case.
    """
    if isinstance(names, str):
        names = parse_names(names)
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


def clean(text: str) -> str:
    """Mend mojibake, resolve HTML entities, collapse white space and lower the case, as open_clip does."""
    return " ".join(html.unescape(html.unescape(ftfy.fix_text(text))).split()).lower()
