"""Many pictures at once: read, encoded, decoded and labelled in threads that run ahead of the consumer."""

from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from ..engines.backends import Engines
from ..errors import InputError
from .held_vocabulary import Categories
from .images import Source
from .pipeline import EncodedPicture, Prepared, Refined, encode, label, prepare, refine
from .rejection import Rejection
from .result import Result
from .run_ahead import in_threads, pool_size, run_ahead

# One is enough for steps of even pace; the second evens out pictures of different sizes.
_AHEAD = 2


@dataclass(frozen=True, eq=False)
class StreamItem:
    """One picture of a stream as it was given, with its result or with why there is none."""

    source: Source
    result: Result | None
    error: str | None = None


Step = TypeVar("Step")
Next = TypeVar("Next")
# A picture on its way: what was made of it so far, or the message of the error that ended it.
_Moving = tuple[Source, Step | str]


def stream_results(
    engines: Engines,
    images: Iterable[Source],
    vocabulary: Categories,
    rejection: Rejection,
    short_side: int | None,
    batch: int,
) -> Generator[StreamItem, None, None]:
    """Segment pictures in order; see `Segmenter.stream`.

    At most a few batches are in memory at a time, whatever the number of pictures.
    """

    def load(source: Source) -> _Moving[Prepared]:
        try:
            return source, prepare(engines, source, short_side)
        except InputError as error:
            return source, str(error)

    # The second batch is read while the encoder has the first; a whole batch leaves the encoder at once.
    loaded = run_ahead(in_threads(load, images, pool_size()), batch)
    encoded = run_ahead(_encode_batches(engines, loaded, batch), batch)
    refined = _decode(engines, encoded, vocabulary, rejection)
    results = run_ahead(_each(lambda item: label(engines, item, vocabulary.names), refined), _AHEAD)
    try:
        for source, outcome in results:
            yield (
                StreamItem(source, None, outcome) if isinstance(outcome, str) else StreamItem(source, outcome)
            )
    finally:
        results.close()


def _encode_batches(
    engines: Engines, loaded: Generator[_Moving[Prepared], None, None], batch: int
) -> Generator[_Moving[EncodedPicture], None, None]:
    waiting: list[_Moving[Prepared]] = []
    try:
        for item in loaded:
            waiting.append(item)
            if len(waiting) == batch:
                yield from _encode(engines, waiting)
                waiting = []
        yield from _encode(engines, waiting)
    finally:
        loaded.close()


def _encode(engines: Engines, loaded: list[_Moving[Prepared]]) -> Iterator[_Moving[EncodedPicture]]:
    good = [outcome for _, outcome in loaded if isinstance(outcome, Prepared)]
    encoded = iter(encode(engines, good) if good else [])
    for source, outcome in loaded:
        yield source, outcome if isinstance(outcome, str) else next(encoded)


def _decode(
    engines: Engines,
    encoded: Generator[_Moving[EncodedPicture], None, None],
    vocabulary: Categories,
    rejection: Rejection,
) -> Generator[_Moving[Refined], None, None]:
    """Decode as many pictures at a time as suits the backend."""

    def decode(item: EncodedPicture) -> Refined:
        return refine(item, vocabulary, rejection)

    try:
        yield from in_threads(_passing(decode), encoded, engines.decodes_at_once)
    finally:
        encoded.close()


def _each(
    work: Callable[[Step], Next], items: Generator[_Moving[Step], None, None]
) -> Generator[_Moving[Next], None, None]:
    """Bring every picture one step further."""
    try:
        yield from map(_passing(work), items)
    finally:
        items.close()


def _passing(work: Callable[[Step], Next]) -> Callable[[_Moving[Step]], _Moving[Next]]:
    """`work` for pictures on their way: an error passes through."""

    def step(item: _Moving[Step]) -> _Moving[Next]:
        source, outcome = item
        return source, outcome if isinstance(outcome, str) else work(outcome)

    return step
