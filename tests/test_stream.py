"""Streams: order, bad files, bounded memory, early end and errors, on stages in numpy."""

import itertools
import threading
import time
from collections.abc import Generator, Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sed_trt.runtime import KeepAll, StreamItem
from sed_trt.runtime.images import Source
from sed_trt.runtime.run_ahead import run_ahead
from sed_trt.runtime.stream import stream_results
from sed_trt.tests.fake_engines import FakeEngines, colour_vocabulary, quarters

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
