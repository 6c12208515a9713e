"""Many pictures at once: files are read, encoded and decoded in threads that run ahead of the consumer."""

from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from ..engines.backends import Engines
from ..errors import InputError
from .held_vocabulary import Categories
from .images import Source
from .pipeline import Encoded, Prepared, encode, finish, prepare
from .rejection import Rejection
from .result import Result
from .run_ahead import run_ahead

_LOADERS = 2
_RESULTS_AHEAD = 2


@dataclass(frozen=True, eq=False)
class StreamItem:
    """One picture of a stream as it was given, with its result or with why there is none."""

    source: Source
    result: Result | None
    error: str | None = None


# A picture on its way: what was made of it so far, or the message of the error that ended it.
_Loaded = tuple[Source, Prepared | str]
_Coded = tuple[Source, Encoded | str]


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
    with ThreadPoolExecutor(_LOADERS, thread_name_prefix="sed-trt-load") as pool:
        loading = run_ahead(_submit(pool, engines, images, short_side), 2 * batch)
        coded = run_ahead(_encode_batches(engines, loading, batch), batch)
        results = run_ahead(_decode_each(engines, coded, vocabulary, rejection), _RESULTS_AHEAD)
        try:
            yield from results
        finally:
            results.close()
            pool.shutdown(cancel_futures=True)


def _submit(
    pool: ThreadPoolExecutor, engines: Engines, images: Iterable[Source], short_side: int | None
) -> Generator[Future[_Loaded], None, None]:
    for source in images:
        yield pool.submit(_load, engines, source, short_side)


def _load(engines: Engines, source: Source, short_side: int | None) -> _Loaded:
    try:
        return source, prepare(engines, source, short_side)
    except InputError as error:
        return source, str(error)


def _encode_batches(
    engines: Engines, loading: Generator[Future[_Loaded], None, None], batch: int
) -> Generator[_Coded, None, None]:
    waiting: list[_Loaded] = []
    try:
        for future in loading:
            waiting.append(future.result())
            if len(waiting) == batch:
                yield from _encode(engines, waiting)
                waiting = []
        yield from _encode(engines, waiting)
    finally:
        loading.close()


def _encode(engines: Engines, loaded: list[_Loaded]) -> Iterator[_Coded]:
    good = [outcome for _, outcome in loaded if isinstance(outcome, Prepared)]
    encoded = iter(encode(engines, good) if good else [])
    for source, outcome in loaded:
        yield source, outcome if isinstance(outcome, str) else next(encoded)


def _decode_each(
    engines: Engines, coded: Generator[_Coded, None, None], vocabulary: Categories, rejection: Rejection
) -> Generator[StreamItem, None, None]:
    try:
        for source, outcome in coded:
            if isinstance(outcome, str):
                yield StreamItem(source, None, outcome)
            else:
                yield StreamItem(source, finish(engines, outcome, vocabulary, rejection))
    finally:
        coded.close()
