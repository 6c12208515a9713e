"""Two predictors on the same pictures."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar


class Scored(Protocol):
    """Scores that have an mIoU, in percent."""

    @property
    def miou(self) -> float:
        """Mean intersection over union."""


Scores = TypeVar("Scores", bound=Scored)


@dataclass(frozen=True)
class Parity(Generic[Scores]):
    """What two predictors reached, and how far they agree.

    Attributes:
        source: what the one in question reached.
        against: what its reference reached.
        drop: mIoU of the reference less that of the one in question, in percentage points.
        agreement: percent of the pixels that both label alike.
    """

    source: Scores
    against: Scores
    drop: float
    agreement: float

    @classmethod
    def of(cls, scores: Sequence[Scores], agreement: float) -> "Parity[Scores]":
        """Of the scores of the one in question and of its reference."""
        source, against = scores
        return cls(source, against, against.miou - source.miou, agreement)
