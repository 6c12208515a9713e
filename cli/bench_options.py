"""Options of `sed-trt bench` that are lists in one word."""

from collections.abc import Callable, Sequence

from ..errors import InputError

_MOST = 65535


def distinct_numbers(option: str, text: str) -> list[int]:
    """Comma-separated whole numbers from 1, each once, in order.

    Raises:
        InputError: one is none.
    """
    return [int(word) for word in _words(option, text, _is_number, "numbers from 1")]


def kept_counts(text: str) -> list[str]:
    """Comma-separated kept counts: whole numbers from 1, "all", "real".

    Raises:
        InputError: one is neither.
    """
    return _words(
        "--kept",
        text,
        lambda word: _is_number(word) or word in ("all", "real"),
        "numbers from 1, all or real",
    )


def kept_at_each_point(text: str, categories: int) -> tuple[int, int, int]:
    """One number for all three rejections or one for each, with commas, never rising.

    Raises:
        InputError: other numbers, or more of them.
    """
    words = [word.strip() for word in text.split(",")]
    if len(words) not in (1, 3) or not all(_is_number(word) for word in words):
        raise InputError(f"--kept: {text!r:.60} is unknown; give one number from 1, or three with commas")
    first, second, third = (int(word) for word in (words if len(words) == 3 else 3 * words))
    if not categories >= first >= second >= third:
        raise InputError(
            f"--kept: {text} of {categories} categories; each point keeps at most what enters it"
        )
    return first, second, third


def choices(option: str, text: str, known: Sequence[str]) -> list[str]:
    """Comma-separated words of `known`, each once; "none" is the empty list.

    Raises:
        InputError: one is not known.
    """
    if text.strip() == "none":
        return []
    return _words(option, text, lambda word: word in known, f"{', '.join(known)}, or none alone")


def one_of(option: str, text: str, known: Sequence[str]) -> str:
    """A word of `known`.

    Raises:
        InputError: it is not.
    """
    if text not in known:
        raise InputError(f"{option}: {text!r:.60} is unknown; choose one of {', '.join(known)}")
    return text


def _words(option: str, text: str, right: Callable[[str], bool], expected: str) -> list[str]:
    words = list(dict.fromkeys(word.strip() for word in text.split(",")))
    for word in words:
        if not right(word):
            raise InputError(f"{option}: {word!r:.60} is unknown; give {expected}, separated by commas")
    return words


def _is_number(word: str) -> bool:
    return word.isascii() and word.isdigit() and 1 <= int(word[:9]) <= _MOST and len(word) <= len(str(_MOST))
