"""Embedded vocabularies of one bundle: known ones at once, new ones embedded in a thread of their own."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from ..runtime import Vocabulary
from ..runtime.text import Progress
from .admission import Admission
from .lanes import Lane

Names = tuple[str, ...]


class _AbandonedError(Exception):
    """Nobody waits any longer for a vocabulary that is being embedded."""


@dataclass(eq=False)
class _Pending:
    """A vocabulary that waits to be embedded, or is being embedded, for so many requests."""

    names: Names
    waiters: int = 0
    future: "asyncio.Future[Vocabulary] | None" = field(default=None, repr=False)


class Vocabularies:
    """Embedded vocabularies by their names, bounded in bytes. Its methods belong to one event loop.

    Requests for the same new vocabulary share one embedding; it stops when the last of them is gone. What was
    embedded until then is in the cache on disk, so that the next attempt goes on from there.
    """

    def __init__(
        self,
        load: Callable[[Sequence[str], Progress], Vocabulary],
        max_bytes: int,
        admission: Admission,
        looked_up: Callable[[bool], object],
    ) -> None:
        """Start the thread.

        Args:
            load: embeds names; it calls the progress now and then, and passes its exceptions on.
            max_bytes: of all vocabularies together, apart from those in use.
            admission: the places for requests whose vocabulary is not embedded yet.
            looked_up: called for each request with whether its vocabulary was there.
        """
        self._load = load
        self._max_bytes = max_bytes
        self._admission = admission
        self._looked_up = looked_up
        # From the one used longest ago to the one used last.
        self._known: OrderedDict[Names, Vocabulary] = OrderedDict()
        self._pinned: set[Names] = set()
        self._pending: dict[Names, _Pending] = {}
        self._lane: Lane[_Pending, Vocabulary] = Lane("embed", self._embed)

    @property
    def nbytes(self) -> int:
        """Bytes that the vocabularies take."""
        return sum(vocabulary.nbytes for vocabulary in list(self._known.values()))

    async def get(self, names: Names) -> Vocabulary:
        """The vocabulary of checked names.

        Raises:
            BusyError: it is new, and enough other requests wait for new ones.
            InputError: a name is too long for the text encoder, or the GPU's memory is too small.
        """
        known = self._known.get(names)
        self._looked_up(known is not None)
        if known is not None:
            self._known.move_to_end(names)
            return known
        with self._admission.place():
            return await self._wait(self._pending.get(names) or self._submit(names))

    async def pin(self, names: Names) -> bool:
        """Embed names if need be and keep them until `unpin`.

        Returns:
            False, and they are not pinned, where the pinned ones would take more than the bound.

        Raises:
            BusyError, InputError: as `get`.
        """
        vocabulary = await self.get(names)
        pinned = self._pinned | {names}
        others = sum(self._known[each].nbytes for each in pinned - {names} if each in self._known)
        if others + vocabulary.nbytes > self._max_bytes:
            return False
        self._pinned = pinned
        self._keep(names, vocabulary)
        return True

    def unpin(self, names: Names) -> None:
        """Treat them like any other vocabulary again."""
        self._pinned.discard(names)
        self._evict()

    def close(self) -> None:
        """Drop what waits and end the thread after the group of names that it is at."""
        for pending in self._pending.values():
            pending.waiters = 0
        self._lane.close()

    def _submit(self, names: Names) -> _Pending:
        pending = self._pending[names] = _Pending(names)
        pending.future = asyncio.wrap_future(self._lane.submit(pending))
        pending.future.add_done_callback(lambda future: self._complete(pending, future))
        return pending

    async def _wait(self, pending: _Pending) -> Vocabulary:
        assert pending.future is not None
        pending.waiters += 1
        try:
            # Another request may wait for the same.
            return await asyncio.shield(pending.future)
        finally:
            pending.waiters -= 1
            if pending.waiters == 0:
                self._forget(pending)
                pending.future.cancel()

    def _complete(self, pending: _Pending, future: "asyncio.Future[Vocabulary]") -> None:
        self._forget(pending)
        if not future.cancelled() and future.exception() is None:
            self._keep(pending.names, future.result())

    def _forget(self, pending: _Pending) -> None:
        if self._pending.get(pending.names) is pending:
            del self._pending[pending.names]

    def _keep(self, names: Names, vocabulary: Vocabulary) -> None:
        self._known[names] = vocabulary
        self._known.move_to_end(names)
        self._evict()

    def _evict(self) -> None:
        surplus = self.nbytes - self._max_bytes
        for names in [each for each in self._known if each not in self._pinned]:
            if surplus <= 0:
                return
            surplus -= self._known.pop(names).nbytes

    def _embed(self, batch: Sequence[_Pending]) -> list[Vocabulary]:
        return [self._embed_one(pending) for pending in batch]

    def _embed_one(self, pending: _Pending) -> Vocabulary:
        def go_on(done: int, total: int) -> None:
            if pending.waiters == 0:
                raise _AbandonedError

        return self._load(pending.names, go_on)
