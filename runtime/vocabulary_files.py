"""A vocabulary as people give it: a file, or the name of a published one."""

import json
from pathlib import Path

from ..errors import InputError
from ..paths import is_file
from .vocabularies import published, published_names


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
