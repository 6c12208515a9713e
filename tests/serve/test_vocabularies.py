"""Embedded vocabularies: shared and abandoned embeddings, the bound in bytes, and pinned ones."""

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator, Sequence
from typing import Any

import numpy as np
import pytest

from sed_trt.errors import InputError
from sed_trt.runtime import Vocabulary
from sed_trt.runtime.text import Progress
from sed_trt.serve.admission import Admission
from sed_trt.serve.http_errors import BusyError
from sed_trt.serve.vocabularies import Vocabularies
from sed_trt.tests.serve.conftest import PATIENCE_S

# Of a vocabulary with one name.
BYTES = 100


class Text:
    """A text encoder: it embeds a name when its gate is open, and remembers the vocabularies."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Semaphore(0)
        self.started: list[tuple[str, ...]] = []
        self.ended: list[tuple[str, ...]] = []

    def load(self, names: Sequence[str], progress: Progress) -> Vocabulary:
        """Embed names one after another."""
        self.started.append(tuple(names))
        self.entered.release()
        for number, name in enumerate(names, 1):
            assert self.gate.wait(PATIENCE_S)
            if name == "unfit":
                raise InputError("vocabulary: unfit")
            progress(number, len(names))
        self.ended.append(tuple(names))
        return Vocabulary(tuple(names), np.zeros((len(names), 1, BYTES // 4), dtype=np.float32))


@pytest.fixture
def text() -> Iterator[Text]:
    """A text encoder whose gate is open."""
    encoder = Text()
    yield encoder
    encoder.gate.set()


def run(
    text: Text, steps: Callable[[Vocabularies], Coroutine[Any, Any, None]], most: int = 100, places: int = 8
) -> list[bool]:
    """Run the steps on new vocabularies of at most so many names, and return which look-ups hit."""
    hits: list[bool] = []

    async def whole() -> None:
        admission = Admission("busy", places, lambda: None)
        vocabularies = Vocabularies(text.load, most * BYTES, admission, hits.append)
        try:
            await asyncio.wait_for(steps(vocabularies), PATIENCE_S)
        finally:
            text.gate.set()
            vocabularies.close()

    asyncio.run(whole())
    return hits


async def entered(text: Text) -> None:
    """Wait until an embedding begins."""
    assert await asyncio.to_thread(text.entered.acquire, timeout=PATIENCE_S)


def test_a_vocabulary_is_embedded_once(text: Text) -> None:
    async def steps(vocabularies: Vocabularies) -> None:
        first = await vocabularies.get(("sky", "tree"))
        assert await vocabularies.get(("sky", "tree")) is first
        assert (await vocabularies.get(("tree",))).names == ("tree",)

    assert run(text, steps) == [False, True, False]
    assert text.started == [("sky", "tree"), ("tree",)]


def test_requests_for_the_same_share_an_embedding(text: Text) -> None:
    async def steps(vocabularies: Vocabularies) -> None:
        text.gate.clear()
        requests = [asyncio.ensure_future(vocabularies.get(("sky",))) for _ in range(3)]
        await entered(text)
        # That one of them goes does not disturb the others.
        requests[0].cancel()
        await asyncio.sleep(0)
        text.gate.set()
        first, second = await asyncio.gather(*requests[1:])
        assert first is second

    run(text, steps)
    assert text.started == [("sky",)]


def test_known_vocabularies_do_not_wait_for_new_ones(text: Text) -> None:
    async def steps(vocabularies: Vocabularies) -> None:
        known = await vocabularies.get(("sky",))
        text.gate.clear()
        new = asyncio.ensure_future(vocabularies.get(("tree",)))
        await entered(text)
        await entered(text)
        assert await vocabularies.get(("sky",)) is known
        assert not new.done()
        text.gate.set()
        await new

    run(text, steps)


def test_an_embedding_that_nobody_waits_for_ends(text: Text) -> None:
    async def steps(vocabularies: Vocabularies) -> None:
        text.gate.clear()
        running = asyncio.ensure_future(vocabularies.get(("sky", "tree")))
        queued = asyncio.ensure_future(vocabularies.get(("sand",)))
        await entered(text)
        running.cancel()
        queued.cancel()
        await asyncio.wait((running, queued))
        again = asyncio.ensure_future(vocabularies.get(("sky", "tree")))
        # The new request is in the queue before the former work goes on.
        await asyncio.sleep(0)
        text.gate.set()
        assert len(await again) == 2

    run(text, steps)
    assert text.started == [("sky", "tree"), ("sky", "tree")]
    assert text.ended == [("sky", "tree")]


def test_errors_reach_all_who_wait_and_are_not_kept(text: Text) -> None:
    async def steps(vocabularies: Vocabularies) -> None:
        for _ in range(2):
            requests = [vocabularies.get(("unfit",)) for _ in range(2)]
            outcomes = await asyncio.gather(*requests, return_exceptions=True)
            assert [type(outcome) for outcome in outcomes] == [InputError, InputError]
        assert vocabularies.nbytes == 0

    run(text, steps)
    assert len(text.started) == 2


def test_a_request_too_many_is_turned_away(text: Text) -> None:
    async def steps(vocabularies: Vocabularies) -> None:
        text.gate.clear()
        waiting = asyncio.ensure_future(vocabularies.get(("sky",)))
        await entered(text)
        with pytest.raises(BusyError):
            await vocabularies.get(("tree",))
        text.gate.set()
        await waiting
        await vocabularies.get(("tree",))

    run(text, steps, places=1)


def test_the_one_used_longest_ago_makes_room(text: Text) -> None:
    async def steps(vocabularies: Vocabularies) -> None:
        for name in ("a", "b", "a", "c", "a", "b"):
            await vocabularies.get((name,))
            assert vocabularies.nbytes <= 2 * BYTES
        assert len(await vocabularies.get(("d", "e", "f"))) == 3
        assert vocabularies.nbytes <= 2 * BYTES

    assert run(text, steps, most=2) == [False, False, True, False, True, False, False]


def test_pinned_ones_stay(text: Text) -> None:
    async def steps(vocabularies: Vocabularies) -> None:
        assert await vocabularies.pin(("a",))
        for name in ("b", "c", "d"):
            await vocabularies.get((name,))
        first = len(text.started)
        await vocabularies.get(("a",))
        assert len(text.started) == first
        assert await vocabularies.pin(("b",))
        assert not await vocabularies.pin(("c",))
        vocabularies.unpin(("a",))
        assert await vocabularies.pin(("c",))
        assert vocabularies.nbytes <= 2 * BYTES

    run(text, steps, most=2)
