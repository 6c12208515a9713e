"""Options that several commands take: results files, and lists of words and numbers between commas."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from ..errors import InputError
from ..files import is_folder, make_folder

Output = Annotated[Path | None, typer.Option("--output", "-o", help="Also write the results as JSON.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the results as JSON.")]


def check_output(output: Path | None, suffixes: tuple[str, ...] = ()) -> None:
    """Check before the work that a file can be written, and create its folder.

    Args:
        output: the file; None where none is asked for.
        suffixes: of the formats that can be written; empty means any.

    Raises:
        InputError: it is a folder, has another suffix, or its folder cannot be created or written.
    """
    if output is not None:
        if is_folder(output):
            raise InputError(f"{output}: is a folder; name a file for the results")
        if suffixes and output.suffix.lower() not in suffixes:
            raise InputError(
                f"{output}: has the suffix {output.suffix!r}, expected {' or '.join(suffixes)}; rename it"
            )
        make_folder(output.parent)


def words(option: str, text: str, known: Sequence[str] = (), numbers: bool = False) -> list[str]:
    """Split a comma-separated option; repeated words are dropped.

    Args:
        option: its name, for the error.
        text: its value.
        known: the words that it takes.
        numbers: whether it also takes whole numbers from 1.

    Raises:
        InputError: it contains another word.
    """
    chosen = list(dict.fromkeys(word.strip() for word in text.split(",")))
    for word in chosen:
        if word not in known and not (numbers and _is_number(word)):
            *first, last = [*(["numbers from 1"] if numbers else []), *known]
            expected = f"{', '.join(first)} or {last}" if first else last
            raise InputError(f"{option}: {word!r:.60} is unknown; give {expected}, separated by commas")
    return chosen


def _is_number(word: str) -> bool:
    """Whether a word is a whole number from 1 to the size of the largest vocabulary."""
    from ..runtime.vocabulary import MAX_CATEGORIES

    # Long numbers are refused by their length, as `int` takes long for them or refuses them itself.
    short = len(word) <= len(str(MAX_CATEGORIES))
    return short and word.isascii() and word.isdigit() and 1 <= int(word) <= MAX_CATEGORIES


def sizes_of(option: str, text: str) -> list[int]:
    """The numbers of an option that takes sizes of vocabularies.

    Raises:
        InputError: a word between the commas is not a whole number from 1.
    """
    return [int(word) for word in words(option, text, numbers=True)]


def kept_at_each_point(text: str, categories: int) -> tuple[int, int, int]:
    """How many categories --kept keeps at each of the three rejection points.

    Args:
        text: one number for all points, or three numbers, separated by commas.
        categories: size of the vocabulary.

    Raises:
        InputError: the text is neither, or a point would keep more categories than enter it.
    """
    counts = [word.strip() for word in text.split(",")]
    if len(counts) not in (1, 3) or not all(map(_is_number, counts)):
        raise InputError(f"--kept: {text!r:.60} is unknown; give one number from 1, or three with commas")
    first, second, third = (int(word) for word in (counts if len(counts) == 3 else 3 * counts))
    if not categories >= first >= second >= third:
        raise InputError(
            f"--kept: {text} of {categories} categories; each point keeps at most what enters it"
        )
    return first, second, third


def one_of(option: str, text: str, known: Sequence[str]) -> str:
    """The value of an option that takes one of the words `known`.

    Raises:
        InputError: it is another word.
    """
    if text not in known:
        raise InputError(f"{option}: {text!r:.60} is unknown; choose one of {', '.join(known)}")
    return text
