"""Streams: order, bad files, bounded memory, early end and errors, on stages in numpy."""

import gc
import itertools
import threading
import time
import weakref
from collections import Counter
from collections.abc import Generator, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sed_trt.runtime import KeepAll, StreamItem
from sed_trt.runtime import stream as stream_module
from sed_trt.runtime.images import ImageSource
from sed_trt.runtime.pipeline import DecodedImage
from sed_trt.runtime.stream import map_threaded, prefetch, stream_results
from sed_trt.tests.fakes.engines import FakeEngines, colour_vocabulary, quarters

NAMES = ("red", "green", "blue")
# For what comes at once unless a test fails.
PATIENCE_S = 60.0


def plain(colour: int) -> np.ndarray:
    image = np.zeros((6, 6, 3), dtype=np.uint8)
    image[..., colour % 3] = 255
    return image


def stream(
    images: Iterable[ImageSource], batch: int = 4, engines: FakeEngines | None = None
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


@pytest.mark.parametrize("images_at_once", [1, 3])
def test_a_transform_sees_the_images_in_order(images_at_once: int) -> None:
    engines = FakeEngines(images_at_once=images_at_once, decodes_at_once=2)
    seen: list[int] = []

    def shift(given: object, decoded: DecodedImage) -> DecodedImage:
        assert given is engines
        seen.append(int(decoded.image[0, 0].argmax()))
        return replace(decoded, kept_ids=(decoded.kept_ids + 1) % 3)

    items = stream_results(
        engines, map(plain, range(9)), colour_vocabulary(*NAMES), KeepAll(), None, 2, transform=shift
    )
    labels = [int(item.result.labels[0, 0]) for item in items if item.result]
    assert seen == [number % 3 for number in range(9)]
    assert labels == [(number + 1) % 3 for number in range(9)]


def test_no_images_give_no_items() -> None:
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


def test_prefetch_works_while_the_consumer_does() -> None:
    made = []

    def numbers() -> Generator[int, None, None]:
        for number in range(10):
            made.append(number)
            yield number

    ahead = prefetch(numbers(), 3)
    assert next(ahead) == 0
    # Three wait in the queue, and the thread waits with a fourth.
    deadline = time.monotonic() + PATIENCE_S
    while len(made) < 5 and time.monotonic() < deadline:
        time.sleep(0.001)
    time.sleep(0.05)
    assert made == [0, 1, 2, 3, 4]
    assert list(ahead) == list(range(1, 10))


class GatedEngines(FakeEngines):
    """`FakeEngines` of which one run of one stage ends only when `gate` is set."""

    def __init__(self, stage: str, run: int) -> None:
        super().__init__()
        self.gate = threading.Event()
        self._gated = (stage, run)
        self._runs: Counter[str] = Counter()
        self._changed = threading.Condition()

    def __getitem__(self, stage: str) -> Any:
        return SimpleNamespace(name=stage, run=lambda inputs: self._run(stage, inputs))

    def _run(self, stage: str, inputs: Mapping[str, Any]) -> dict[str, np.ndarray]:
        if (stage, self._runs[stage]) == self._gated:
            assert self.gate.wait(PATIENCE_S)
        outputs = self.engines[stage].run(inputs)
        with self._changed:
            self._runs[stage] += 1
            self._changed.notify_all()
        return outputs

    def wait_for(self, stage: str, runs: int) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: self._runs[stage] >= runs, PATIENCE_S)


@pytest.mark.parametrize(
    ("stage", "run", "results", "stage_before", "runs_before"),
    [
        # Of images 0 to 6 the first batch is whole.
        ("pixels", 6, 4, "pixels", 6),
        # While the second batch is encoded, the third is made ready; those of the first come out.
        ("image", 1, 4, "pixels", 12),
        # While the last image of the second batch is decoded, the third is encoded.
        ("decode2", 7, 7, "image", 3),
        ("label", 5, 5, "decode3", 7),
    ],
)
def test_a_stage_that_is_slow_never_waits_and_images_do_not_pile_up(
    stage: str,
    run: int,
    results: int,
    stage_before: str,
    runs_before: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """While a stage is at an image, its next input is made and the results before come out."""
    monkeypatch.setattr(stream_module, "pool_size", lambda: 1)
    images, alive, most = 200, 0, 0

    def gone() -> None:
        nonlocal alive
        alive -= 1

    def sources() -> Iterator[np.ndarray]:
        nonlocal alive, most
        for number in range(images):
            image = plain(number)
            weakref.finalize(image, gone)
            alive += 1
            most = max(most, alive)
            yield image

    engines = GatedEngines(stage, run)
    items = stream(sources(), 4, engines)
    assert all(next(items).result is not None for _ in range(results))
    engines.wait_for(stage_before, runs_before)
    # A stage that would go on without end gets the time to.
    time.sleep(0.05)
    engines.gate.set()
    assert sum(item.result is not None for item in items) == images - results
    # 2 batches read or being read, 2 encoded or being encoded, and a few on either side of each queue.
    assert most <= 30
    gc.collect()
    assert alive <= 1


@pytest.mark.parametrize("at_once", [1, 2, 3])
@pytest.mark.parametrize(
    ("setting", "stage"),
    [("decodes_at_once", "decode1"), ("images_at_once", "image"), ("images_at_once", "label")],
)
def test_so_many_images_are_in_work_as_the_backend_wants(
    setting: str, stage: str, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    engines = FakeEngines()
    setattr(engines, setting, at_once)
    together = threading.Barrier(at_once)
    run, most = engines[stage].run, 0
    inside: list[None] = []

    def meet(inputs: Mapping[str, Any]) -> dict[str, Any]:
        nonlocal most
        inside.append(None)
        # Breaks, and so fails the stream, where fewer come at a time.
        together.wait(timeout=PATIENCE_S)
        time.sleep(0.05)
        most = max(most, len(inside))
        # Nobody leaves before all have counted.
        together.wait(timeout=PATIENCE_S)
        inside.pop()
        return run(inputs)

    monkeypatch.setattr(engines[stage], "run", meet)
    items = list(stream([plain(number) for number in range(6)], 4, engines))
    assert [int(item.result.labels[0, 0]) for item in items if item.result] == [0, 1, 2, 0, 1, 2]
    assert most == at_once


def test_images_side_by_side_keep_their_order_and_their_errors(tmp_path: Path) -> None:
    images: list[ImageSource] = [plain(0), tmp_path / "missing.png", plain(2), plain(1)]
    items = list(stream(images, 4, FakeEngines(images_at_once=3)))
    assert [item.source for item in items] == images
    assert [int(item.result.labels[0, 0]) for item in items if item.result] == [0, 2, 1]
    assert items[1].result is None and "missing.png" in str(items[1].error)


def test_map_threaded_keeps_order_and_works_at_once() -> None:
    meeting = threading.Barrier(3, timeout=PATIENCE_S)

    def work(number: int) -> int:
        # Passes only when three are at work together.
        meeting.wait()
        return -number

    assert list(map_threaded(work, range(9), 3)) == [-number for number in range(9)]


def test_map_threaded_takes_only_a_little_ahead() -> None:
    taken = itertools.count()
    made = map_threaded(lambda number: number, taken, 3)
    assert [next(made) for _ in range(10)] == list(range(10))
    made.close()
    # One for each thread, one that waits for room, and this one.
    assert next(taken) <= 10 + 3 + 2


def test_map_threaded_gives_what_is_made_before_more_comes() -> None:
    given = threading.Event()

    def items() -> Iterator[int]:
        yield 1
        # A camera whose next image comes once the last one was dealt with.
        assert given.wait(timeout=PATIENCE_S)
        yield 2

    made = map_threaded(lambda number: number, items(), 3)
    assert next(made) == 1
    given.set()
    assert list(made) == [2]


def test_map_threaded_raises_in_turn() -> None:
    def work(number: int) -> float:
        return 1 / (number - 5)

    before = threads()
    seen = []
    with pytest.raises(ZeroDivisionError):
        for value in map_threaded(work, range(100), 3):
            seen.append(value)
    assert len(seen) == 5
    assert threads() <= before
