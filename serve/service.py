"""What the routes of both protocols share: the bundles' owners, vocabularies, images, and patience."""

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any

import numpy as np
from fastapi import Request, Response

from ..errors import InputError
from ..runtime import EncodedImage, Rejection, Result, Segmenter, Vocabulary, parse_rejection
from ..runtime.vocabulary import checked_names, published_names
from .admission import Admission
from .http_errors import CLIENT_GONE, HttpError, public_line
from .images_kept import KeptImages
from .metrics import Metrics
from .owner import NewImage, Owner
from .registry import Registry
from .settings import Settings
from .vocabularies import Names

# Requests whose bodies are read or in memory at a time, for each place of an image.
_REQUESTS_PER_PLACE = 4

_logger = logging.getLogger(__name__)


class _StoppedError(Exception):
    """The server stops before its warm-up is over."""


class _LimitedRejection:
    """A policy whose result must not have more than so many categories."""

    def __init__(self, policy: Rejection, text: str, limit: int) -> None:
        self._policy = policy
        self._text = text
        self._limit = limit

    def keep(self, votes: np.ndarray) -> np.ndarray:
        """See `Rejection.keep`; raises InputError where too many are left."""
        kept = self._policy.keep(votes)
        if len(kept) > self._limit:
            raise InputError(
                f"rejection: {self._text!r} leaves {len(kept)} categories, this server takes at most "
                f"{self._limit}; use budget:{self._limit} or a smaller K of topk"
            )
        return kept


class Service:
    """A server's state. Its coroutines and methods belong to one event loop.

    Attributes:
        owners: the bundles by name, the default first.
        requests: the places for requests with a body.
        ready: whether warm-up is over.
    """

    def __init__(
        self,
        settings: Settings,
        segmenters: Mapping[str, Segmenter],
        vocabularies: Mapping[str, list[str]] | None = None,
    ) -> None:
        """Start the threads of the owners.

        Args:
            settings: limits and times.
            segmenters: opened bundles by name, the default first; at least one.
            vocabularies: category names by name, registered before the server is ready.
        """
        self.settings = settings
        self.metrics = Metrics()
        self.owners = {
            name: Owner(name, segmenter, settings, self.metrics) for name, segmenter in segmenters.items()
        }
        self.registry = Registry(self.owners.values())
        self.kept = KeptImages(
            settings.images_kept, settings.images_kept_mb * 1_000_000, settings.image_ttl_s
        )
        self.requests = Admission(
            "the server is busy",
            settings.queue * _REQUESTS_PER_PLACE,
            lambda: self.metrics.rejected("requests"),
        )
        self.ready = False
        self._first_vocabularies = vocabularies or {}
        self._closing = False
        self.metrics.watch("ready", "Whether warm-up is over.", lambda: self.ready)
        self.metrics.watch("images_kept", "Encoded images that are kept.", lambda: len(self.kept))
        self.metrics.watch("images_kept_bytes", "Memory of these.", lambda: self.kept.nbytes)

    def owner(self, name: str | None) -> Owner:
        """The owner of a bundle, None being the default; raises HttpError, 404, where there is none."""
        if name is None:
            return next(iter(self.owners.values()))
        if name not in self.owners:
            raise HttpError(
                404, f"bundle: {name!r:.60} is not served; choose one of {', '.join(self.owners)}"
            )
        return self.owners[name]

    async def names(self, owner: Owner, categories: list[str] | None, vocabulary: str | None) -> Names:
        """The checked names of a request, which gives categories or the name of a vocabulary.

        Raises:
            HttpError: 422, not one of both; 404, no such vocabulary; 413, too many categories.
            InputError: a name is unfit.
        """
        if (categories is None) == (vocabulary is None):
            raise HttpError(
                422, 'categories: give one of categories, such as "sky; tree, trees", and vocabulary'
            )
        names = self.registry.names_of(vocabulary) if vocabulary is not None else categories or []
        self.check_count(owner, names)
        return await asyncio.to_thread(checked_names, names)

    def check_count(self, owner: Owner, names: Sequence[str]) -> None:
        """Raise HttpError, 413, where a vocabulary has more categories than a bundle's owner takes."""
        if len(names) > owner.max_categories:
            raise HttpError(
                413, f"categories: {len(names)} are given, the most that is taken is {owner.max_categories}"
            )

    def rejection(self, text: str) -> Rejection:
        """The policy of a text, with the server's limit; raises InputError where there is none."""
        return _LimitedRejection(parse_rejection(text), text, self.settings.max_kept)

    async def segment(
        self,
        owner: Owner,
        image: NewImage | EncodedImage,
        names: Names,
        rejection: Rejection,
        render: Callable[[Result, float], Response],
    ) -> Response:
        """Segment an image.

        `render` makes the answer of the result and of the milliseconds that the image waited for others.
        """
        # Before a place is taken: requests with known vocabularies need not wait for this one.
        vocabulary: Vocabulary = await owner.vocabularies.get(names)
        with owner.images.place():
            start = time.perf_counter()
            # Of an image that was encoded before, the times of that are no times of this request.
            earlier = image.timings if isinstance(image, EncodedImage) else {}

            def finish(result: Result) -> Response:
                steps = {step: ms for step, ms in result.timings.items() if step not in earlier}
                waited_ms = max(0.0, (time.perf_counter() - start) * 1000 - sum(steps.values()))
                self.metrics.image_done(owner.name, steps, result.kept, waited_ms)
                return render(result, waited_ms)

            return await owner.segment(image, vocabulary, rejection, finish)

    async def answered(
        self, request: Request, work: Coroutine[Any, Any, Response], timeout_s: float
    ) -> Response:
        """The answer that `work` makes, unless its client goes or the time is up; then `work` is cancelled.

        The request's body must have been read.

        Raises:
            HttpError: 503, the time is up; or the client is gone.
        """
        working = asyncio.ensure_future(work)
        gone = asyncio.ensure_future(_disconnected(request))
        try:
            await asyncio.wait((working, gone), timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
            if working.done():
                return working.result()
            if gone.done():
                self.metrics.abandoned("client")
                raise HttpError(CLIENT_GONE, "the client is gone")
            self.metrics.abandoned("timeout")
            raise HttpError(503, f"the request took longer than {timeout_s:g} s", {"Retry-After": "10"})
        finally:
            working.cancel()
            gone.cancel()
            await asyncio.gather(working, gone, return_exceptions=True)

    def line(self, error: InputError) -> str:
        """The line of an error as clients may see it."""
        return public_line(str(error), [str(owner.segmenter.bundle.path) for owner in self.owners.values()])

    async def healthy(self) -> bool:
        """Whether the engines of all bundles work."""
        return all([await owner.healthy() for owner in self.owners.values()])

    async def make_ready(self) -> None:
        """Warm the engines up and register the first vocabularies; then the server is ready.

        Raises:
            InputError: a vocabulary is unfit, or a stage does not run.
        """

        def go_on(done: int, total: int) -> None:
            if self._closing:
                raise _StoppedError

        for owner in self.owners.values():
            _logger.info("warming up %s", owner.name)
            try:
                await asyncio.to_thread(owner.segmenter.warmup, batch=owner.batch, progress=go_on)
            except _StoppedError:
                return
        for name, names in self._first_vocabularies.items():
            _logger.info("embedding the vocabulary %s", name)
            try:
                if name in published_names():
                    await self.registry.embed_published(name)
                else:
                    await self.registry.put(name, checked_names(names))
            except HttpError as problem:
                raise InputError(problem.line) from problem
        self.ready = True
        _logger.info("ready")

    async def drop_expired(self) -> None:
        """Forget kept images when their time is over, for ever."""
        while True:
            await asyncio.sleep(self.settings.image_ttl_s / 4)
            self.kept.drop_expired()

    def stop_warm_up(self) -> None:
        """Let warm-up end after the run that it is at."""
        self._closing = True

    def close(self) -> None:
        """Drop what waits and end the threads of the owners."""
        for owner in self.owners.values():
            owner.close()


async def _disconnected(request: Request) -> None:
    """Wait until the client of a request, whose body was read, closes the connection."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
