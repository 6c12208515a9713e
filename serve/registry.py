"""Vocabularies that users registered under a name, and the published ones."""

import re
from collections.abc import Collection

from ..runtime import published
from ..runtime.vocabulary import checked_names, published_names
from .http_errors import HttpError
from .owner import Owner
from .vocabularies import Names

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_MAX_REGISTERED = 100


class Registry:
    """Category names by the name of their vocabulary; those registered here are embedded for every bundle."""

    def __init__(self, owners: Collection[Owner]) -> None:
        self._owners = owners
        self._names: dict[str, Names] = {}

    @property
    def registered(self) -> dict[str, Names]:
        """The registered vocabularies, sorted by name."""
        return dict(sorted(self._names.items()))

    def names_of(self, name: str) -> list[str]:
        """The category names of a registered or published vocabulary.

        Raises:
            HttpError: 404, there is none of this name.
        """
        if name in self._names:
            return list(self._names[name])
        if name in published_names():
            return published(name)
        raise HttpError(
            404,
            f"vocabulary: {name!r:.70} is unknown; register it with PUT /v1/vocabularies/NAME, or take "
            f"one of {', '.join((*self.registered, *published_names()))}",
        )

    async def put(self, name: str, names: Names) -> bool:
        """Register names in the place of those that had this name before, and embed them for every bundle.

        Returns:
            Whether there were none before.

        Raises:
            HttpError: the name cannot be taken, or there is no more room.
            InputError: as `Segmenter.vocabulary`.
        """
        if not _NAME.fullmatch(name):
            raise HttpError(
                422,
                f"vocabulary: the name {name!r:.70} is unfit, expected 1 to 64 letters, digits, '.', '_' or "
                "'-', a letter or digit first",
            )
        _refuse_published(name)
        if name not in self._names and len(self._names) >= _MAX_REGISTERED:
            raise HttpError(409, f"vocabulary: {_MAX_REGISTERED} are registered already; delete one first")
        await self._pin(names)
        former = self._names.get(name)
        self._names[name] = names
        if former is not None:
            self._unpin_unless_registered(former)
        return former is None

    def delete(self, name: str) -> None:
        """Forget a registered vocabulary.

        Raises:
            HttpError: there is none of this name.
        """
        _refuse_published(name)
        if name not in self._names:
            raise HttpError(404, f"vocabulary: {name!r:.70} is not registered")
        self._unpin_unless_registered(self._names.pop(name))

    async def embed_published(self, name: str) -> None:
        """Embed a published vocabulary for every bundle, for as long as the server runs.

        Raises:
            HttpError: there is no more room.
        """
        await self._pin(checked_names(published(name)))

    async def _pin(self, names: Names) -> None:
        try:
            for owner in self._owners:
                if not await owner.vocabularies.pin(names):
                    raise HttpError(
                        409,
                        "vocabulary: there is no memory left for registered vocabularies; delete one first, "
                        "or start the server with a larger --vocabularies-mb",
                    )
        except BaseException:
            self._unpin_unless_registered(names)
            raise

    def _unpin_unless_registered(self, names: Names) -> None:
        if names not in self._names.values():
            for owner in self._owners:
                owner.vocabularies.unpin(names)


def _refuse_published(name: str) -> None:
    if name in published_names():
        raise HttpError(409, f"vocabulary: {name} is a published one, which cannot be changed")
