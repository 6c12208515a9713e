"""Early rejection: policies that choose, from the vote table of a stage, the categories to keep.

A vote table is an integer array (R, T): votes[r, t] counts the pixels at which category t has the r-th
largest logit. Every policy keeps at least one category and returns indices in rising order.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from ..errors import InputError
from ..stages import VOTE_RANKS

# Of a number in a policy's text; int() refuses some thousand digits, and no image needs more than nine.
MAX_DIGITS = 9
_INT32_MAX = np.iinfo(np.int32).max


class Rejection(Protocol):
    """A policy that drops categories between two stages."""

    def keep(self, votes: np.ndarray) -> np.ndarray:
        """Sorted int64 indices (K,) of the categories of `votes` (R, T) that survive, 1 <= K <= T.

        A stream may call it from several threads, with the votes of several images in any order.
        """


@dataclass(frozen=True)
class TopK:
    """Keep the categories among the k best at any pixel: the rule of the SED paper, with k = 8."""

    k: int = 8

    def __post_init__(self) -> None:
        _check_number("topk", "k", self.k, VOTE_RANKS)

    def keep(self, votes: np.ndarray) -> np.ndarray:
        """See `Rejection.keep`."""
        return _at_least_one(votes[: self.k].max(axis=0) > 0, votes)


@dataclass(frozen=True)
class MinPixels:
    """Keep the categories among the k best at `pixels` pixels or more.

    Pixels are those of the stage's logits, so the same number is a smaller area at each later stage.
    """

    k: int = 8
    pixels: int = 20

    def __post_init__(self) -> None:
        _check_number("min-pixels", "k", self.k, VOTE_RANKS)
        _check_number("min-pixels", "pixels", self.pixels)

    def keep(self, votes: np.ndarray) -> np.ndarray:
        """See `Rejection.keep`."""
        return _at_least_one(votes[: self.k].sum(axis=0, dtype=np.int64) >= self.pixels, votes)


@dataclass(frozen=True)
class Budget:
    """Keep the `categories` with the highest scores, or all if there are fewer: their number is fixed.

    The score is the Borda count: a vote at rank r of R weighs R - r. Ties go to the lower index.
    """

    categories: int = 32

    def __post_init__(self) -> None:
        _check_number("budget", "categories", self.categories)

    def keep(self, votes: np.ndarray) -> np.ndarray:
        """See `Rejection.keep`."""
        best_first = np.argsort(-_borda(votes), kind="stable")
        return np.sort(best_first[: self.categories]).astype(np.int64)


@dataclass(frozen=True)
class KeepAll:
    """Keep every category: no rejection."""

    def keep(self, votes: np.ndarray) -> np.ndarray:
        """See `Rejection.keep`."""
        return np.arange(votes.shape[1], dtype=np.int64)


FORMS = "topk:K, min-pixels:K:PIXELS, budget:CATEGORIES, none"


def parse_rejection(text: str) -> Rejection:
    """The policy that `text` names, in one of `FORMS`, for example "topk:8".

    Raises:
        InputError: no such policy, or its numbers are missing, surplus or out of range.
    """
    name, *words = text.strip().split(":")
    if not all(word.isascii() and word.isdigit() and len(word) <= MAX_DIGITS for word in words):
        raise InputError(
            f"rejection: {text!r:.60} holds something other than whole numbers of up to {MAX_DIGITS} digits; "
            f"choose one of {FORMS}"
        )
    match name, [int(word) for word in words]:
        case "topk", [k]:
            return TopK(k)
        case "min-pixels", [k, pixels]:
            return MinPixels(k, pixels)
        case "budget", [categories]:
            return Budget(categories)
        case "none", []:
            return KeepAll()
    raise InputError(f"rejection: {text!r:.60} is unknown; choose one of {FORMS}")


def _check_number(policy: str, name: str, value: int, limit: int | None = None) -> None:
    # bool is an int to Python, but True is no number of anything.
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not whole or value < 1 or (limit is not None and value > limit):
        range_ = "of at least 1" if limit is None else f"from 1 to {limit}"
        raise InputError(f"rejection {policy}: {name} is {value!r:.60}, expected a whole number {range_}")


def _borda(votes: np.ndarray) -> np.ndarray:
    weights = np.arange(len(votes), 0, -1, dtype=np.int64)
    return weights @ votes.astype(np.int64)


def _at_least_one(alive: np.ndarray, votes: np.ndarray) -> np.ndarray:
    if not alive.any():
        return np.array([_borda(votes).argmax()], dtype=np.int64)
    return np.flatnonzero(alive).astype(np.int64)


def bucket_size(count: int, buckets: Sequence[int] | None) -> int:
    """The smallest of the rising `buckets` that holds so many categories; `count` where none does."""
    return next((size for size in buckets or () if size >= count), count)


def padded(kept: np.ndarray, buckets: Sequence[int] | None) -> np.ndarray:
    """Kept indices, int64 (K,), followed by -1 up to the smallest of the rising `buckets` that holds them.

    A GPU backend is slow the first time it meets a shape, and the stages take -1 for a category that is not
    there. The indices are returned unchanged where `buckets` is None or K is larger than the largest, which
    the engine then refuses with its own limit.
    """
    missing = bucket_size(len(kept), buckets) - len(kept)
    return np.pad(kept, (0, missing), constant_values=-1) if missing else kept


def device_rule(rejection: Rejection) -> np.ndarray | None:
    """The numbers, int32 (VOTE_RANKS + 2,), with which the stage `select` keeps what a policy keeps.

    None where there are no such numbers, as for policies that users define.
    """
    # A class derived from one of these may keep something else.
    if type(rejection) is TopK:
        ranks, least, largest = rejection.k, 1, _INT32_MAX
    elif type(rejection) is MinPixels:
        ranks, least, largest = rejection.k, rejection.pixels, _INT32_MAX
    elif type(rejection) is Budget:
        ranks, least, largest = 0, 0, rejection.categories
    else:
        return None
    limits = [min(least, _INT32_MAX), min(largest, _INT32_MAX)]
    return np.array([*(np.arange(VOTE_RANKS) < ranks), *limits], dtype=np.int32)
