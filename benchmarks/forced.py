"""Rejection with the outcome given, so that everything compared decodes the same categories."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..runtime import Rejection

# At each of the three points, int64 indices of the survivors among the categories that enter it.
KeptSets = tuple[np.ndarray, np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Forced:
    """Keep the first `categories`, or all if there are fewer, whatever the votes."""

    categories: int

    def keep(self, votes: np.ndarray) -> np.ndarray:
        """See `Rejection.keep`."""
        return np.arange(min(self.categories, votes.shape[1]), dtype=np.int64)

    def sets(self, categories: int) -> KeptSets:
        """What it keeps of a vocabulary of so many."""
        count = min(self.categories, categories)
        return np.arange(count), np.arange(count), np.arange(count)


class Replay:
    """Keep the sets given, one a call; for one picture."""

    def __init__(self, sets: Sequence[np.ndarray]) -> None:
        self._left = iter(sets)

    def keep(self, votes: np.ndarray) -> np.ndarray:
        """See `Rejection.keep`."""
        return next(self._left)


class Recorder:
    """Another policy, with what it kept of one picture.

    Attributes:
        sets: one for each call so far.
    """

    def __init__(self, policy: Rejection) -> None:
        self._policy = policy
        self.sets: list[np.ndarray] = []

    def keep(self, votes: np.ndarray) -> np.ndarray:
        """See `Rejection.keep`."""
        self.sets.append(self._policy.keep(votes))
        return self.sets[-1]
