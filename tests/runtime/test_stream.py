"""Streams: order, bad files, bounded memory, early end and errors, on stages in numpy."""

import gc
import itertools
import threading
import time
import weakref
from collections.abc import Generator, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sed_trt.engines.engine import Engine
from sed_trt.runtime import KeepAll, StreamItem
from sed_trt.runtime import stream as stream_module
from sed_trt.runtime.images import Source
from sed_trt.runtime.stream import in_threads, run_ahead, stream_results
from sed_trt.tests.fakes.engines import FakeEngines, colour_vocabulary, quarters

NAMES = ("red", "green", "blue")


def plain(colour: int) -> np.ndarray:
    image = np.zeros((6, 6, 3), dtype=np.uint8)
    image[..., colour % 3] = 255
    return image


def stream(
    images: Iterable[Source], batch: int = 4, engines: FakeEngines | None = None
) -> Generator[StreamItem, None, None]:
    return stream_results(engines or FakeEngines(), images, colour_vocabulary(*NAMES), KeepAll(), None, batch)


def threads() -> set[threading.Thread]:
    return set(threading.enumerate())


@pytest.mark.parametrize("batch", [1, 3, 4, 50])
def test_order_is_kept(batch: int) -> None:
    items = list(stream([plain(number) for number in range(11)], batch))
    assert [int(item.result.labels[0, 0]) for item in items if item.result] == [n % 3 for n in range(11)]


def test_encoder_runs_on_batches() -> None:
    engines = FakeEngines()
    list(stream([plain(number) for number in range(10)], 4, engines))
    assert [shapes["pixels"][0] for shapes in engines["image"].shapes] == [4, 4, 2]


def test_no_pictures_give_no_items() -> None:
    assert list(stream([])) == []


def test_a_bad_file_is_one_error_and_the_rest_goes_on(tmp_path: Path) -> None:
    good, bad = tmp_path / "good.png", tmp_path / "bad.png"
    Image.fromarray(quarters()).save(good)
    bad.write_bytes(b"no image")
    items: list[StreamItem] = list(stream([good, bad, tmp_path / "absent.png", good, bad], 2))
    assert [item.result is not None for item in items] == [True, False, False, True, False]
    assert [item.source for item in items][1:3] == [bad, tmp_path / "absent.png"]
    assert str(bad) in str(items[1].error)
    assert "no such file" in str(items[2].error)


def test_endless_input_is_taken_only_a_little_ahead() -> None:
    taken = itertools.count()
    latest = 0

    def endless() -> Iterator[np.ndarray]:
        nonlocal latest
        for latest in taken:
            yield plain(latest)

    items = stream(endless(), 2)
    for _ in range(20):
        next(items)
    time.sleep(0.2)
    assert latest < 20 + 20
    items.close()


def test_early_close_stops_the_threads() -> None:
    before = threads()
    items = stream((plain(number) for number in itertools.count()), 2)
    next(items)
    assert threads() > before
    items.close()
    assert threads() <= before


def test_other_errors_are_raised_after_the_items_before_them() -> None:
    def failing() -> Iterator[np.ndarray]:
        yield plain(0)
        raise RuntimeError("camera unplugged")

    before = threads()
    items = stream(failing(), 1)
    assert next(items).result is not None
    with pytest.raises(RuntimeError, match="camera unplugged"):
        list(items)
    assert threads() <= before


def test_an_engine_that_fails_ends_the_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    engines = FakeEngines()

    def out_of_memory(inputs: object) -> dict[str, np.ndarray]:
        raise MemoryError("decode2")

    monkeypatch.setattr(engines["decode2"], "run", out_of_memory)
    before = threads()
    with pytest.raises(MemoryError):
        list(stream([plain(0)] * 5, 2, engines))
    assert threads() <= before


def test_run_ahead_works_while_the_consumer_does() -> None:
    made = []

    def numbers() -> Generator[int, None, None]:
        for number in range(10):
            made.append(number)
            yield number

    ahead = run_ahead(numbers(), 3)
    assert next(ahead) == 0
    time.sleep(0.1)
    # Three wait in the queue and a fourth is held by the thread.
    assert len(made) == 5
    assert list(ahead) == list(range(1, 10))


class SlowEngine:
    """A stage that takes its time, and notes when it was at it."""

    def __init__(self, engine: Engine, seconds: float) -> None:
        self.engine = engine
        self.seconds = seconds
        self.busy = 0.0
        self.began: float | None = None
        self.ended = 0.0

    @property
    def name(self) -> str:
        return self.engine.name

    def run(self, inputs: Mapping[str, Any]) -> Mapping[str, Any]:
        start = time.monotonic()
        outputs = self.engine.run(inputs)
        # A batch takes as long as its pictures one by one.
        time.sleep(self.seconds * (len(inputs["pixels"]) if self.name == "image" else 1))
        self.ended = time.monotonic()
        self.busy += self.ended - start
        self.began = start if self.began is None else self.began
        return outputs

    def busy_share(self) -> float:
        assert self.began is not None
        return self.busy / (self.ended - self.began)


class SlowEngines(FakeEngines):
    """`FakeEngines` of which each stage named in `seconds` is slow."""

    def __init__(self, seconds: Mapping[str, float]) -> None:
        super().__init__()
        self.slow = {
            stage: SlowEngine(super(SlowEngines, self).__getitem__(stage), s) for stage, s in seconds.items()
        }

    def __getitem__(self, stage: str) -> Any:
        return self.slow.get(stage) or super().__getitem__(stage)


@pytest.mark.parametrize("slowest", ["pixels", "image", "decode2", "label"])
def test_the_slowest_stage_never_waits_and_pictures_do_not_pile_up(
    slowest: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_module, "pool_size", lambda: 1)
    pictures, alive, most = 500, 0, 0

    def gone() -> None:
        nonlocal alive
        alive -= 1

    def made() -> Iterator[np.ndarray]:
        nonlocal alive, most
        for number in range(pictures):
            picture = plain(number)
            weakref.finalize(picture, gone)
            alive += 1
            most = max(most, alive)
            yield picture

    seconds = dict.fromkeys(("pixels", "image", "decode2", "label"), 0.002) | {slowest: 0.02}
    engines = SlowEngines(seconds)
    assert sum(item.result is not None for item in stream(made(), 4, engines)) == pictures
    assert engines.slow[slowest].busy_share() >= 0.9
    # 2 batches read or being read, 2 encoded or being encoded, and a few on either side of each queue.
    assert most <= 30
    gc.collect()
    assert alive <= 1


@pytest.mark.parametrize("decodes_at_once", [1, 2, 3])
def test_so_many_pictures_are_decoded_at_a_time_as_the_backend_wants(
    decodes_at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    engines = FakeEngines(decodes_at_once=decodes_at_once)
    together = threading.Barrier(decodes_at_once)
    run, most = engines["decode1"].run, 0
    inside: list[None] = []

    def meet(inputs: Mapping[str, Any]) -> dict[str, Any]:
        nonlocal most
        inside.append(None)
        # Breaks, and so fails the stream, where fewer come at a time.
        together.wait(timeout=10)
        time.sleep(0.05)
        most = max(most, len(inside))
        # Nobody leaves before all have counted.
        together.wait(timeout=10)
        inside.pop()
        return run(inputs)

    monkeypatch.setattr(engines["decode1"], "run", meet)
    items = list(stream([plain(number) for number in range(6)], 4, engines))
    assert [int(item.result.labels[0, 0]) for item in items if item.result] == [0, 1, 2, 0, 1, 2]
    assert most == decodes_at_once


def test_in_threads_keeps_order_and_works_at_once() -> None:
    meeting = threading.Barrier(3, timeout=30)

    def work(number: int) -> int:
        # Passes only when three are at work together.
        meeting.wait()
        return -number

    assert list(in_threads(work, range(9), 3)) == [-number for number in range(9)]


def test_in_threads_takes_only_a_little_ahead() -> None:
    taken = itertools.count()
    made = in_threads(lambda number: number, taken, 3)
    assert [next(made) for _ in range(10)] == list(range(10))
    made.close()
    # One for each thread, one that waits for room, and this one.
    assert next(taken) <= 10 + 3 + 2


def test_in_threads_gives_what_is_made_before_more_comes() -> None:
    given = threading.Event()

    def items() -> Iterator[int]:
        yield 1
        # A camera whose next picture comes once the last one was dealt with.
        assert given.wait(timeout=30)
        yield 2

    made = in_threads(lambda number: number, items(), 3)
    assert next(made) == 1
    given.set()
    assert list(made) == [2]


def test_in_threads_raises_in_turn() -> None:
    def work(number: int) -> float:
        return 1 / (number - 5)

    before = threads()
    seen = []
    with pytest.raises(ZeroDivisionError):
        for value in in_threads(work, range(100), 3):
            seen.append(value)
    assert len(seen) == 5
    assert threads() <= before
