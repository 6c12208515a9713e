"""The bound on requests that are worked on at a time, and how long one that is turned away should wait."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from .http_errors import BusyError

# Weight of the newest duration in the mean.
_NEWEST = 0.2
_MAX_RETRY_S = 60


class Admission:
    """Places for requests. Used by one thread, that of the event loop."""

    def __init__(
        self,
        line: str,
        places: int,
        rejected: Callable[[], object],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Offer so many places.

        Args:
            line: what a request that is turned away is told.
            places: requests at a time.
            rejected: called for each that is turned away.
            clock: seconds from any start.
        """
        self._line = line
        self._places = places
        self._rejected = rejected
        self._clock = clock
        self._mean_s = 0.0
        self.taken = 0

    @property
    def retry_after_s(self) -> int:
        """Whole seconds that a request that is let in takes at present, 1 to 60."""
        return min(_MAX_RETRY_S, max(1, math.ceil(self._mean_s)))

    @contextmanager
    def place(self) -> Iterator[None]:
        """Take a place for the time of the block.

        Raises:
            BusyError: all are taken.
        """
        if self.taken >= self._places:
            self._rejected()
            raise BusyError(self._line, self.retry_after_s)
        self.taken += 1
        start = self._clock()
        try:
            yield
            # Of requests that fail or are given up the duration says nothing.
            self._mean_s += (self._clock() - start - self._mean_s) * (_NEWEST if self._mean_s else 1)
        finally:
            self.taken -= 1
