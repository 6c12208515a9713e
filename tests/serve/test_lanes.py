"""Lanes: order, batches, cancelled entries, failures and the end."""

import asyncio
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError

import pytest

from sed_trt.serve.lanes import Lane
from sed_trt.tests.serve.conftest import PATIENCE_S, eventually


class Work:
    """Squares numbers, once its gate is open, and remembers the batches that it got."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.entered = threading.Semaphore(0)
        self.batches: list[list[int]] = []

    def __call__(self, numbers: Sequence[int]) -> list[int]:
        self.batches.append(list(numbers))
        self.entered.release()
        assert self.gate.wait(PATIENCE_S)
        if -1 in numbers:
            raise ValueError("minus one")
        return [number**2 for number in numbers]


@pytest.fixture
def work() -> Iterator[Work]:
    """Work whose gate is shut until the end of the test."""
    each = Work()
    yield each
    each.gate.set()


def test_outputs_come_in_order(work: Work) -> None:
    work.gate.set()
    lane = Lane("test", work)
    futures = [lane.submit(number) for number in range(5)]
    assert [future.result(PATIENCE_S) for future in futures] == [0, 1, 4, 9, 16]
    assert work.batches == [[0], [1], [2], [3], [4]]
    lane.close()


def test_what_waits_becomes_a_batch(work: Work) -> None:
    lane = Lane("test", work, batch=4)
    futures = [lane.submit(0)]
    assert work.entered.acquire(timeout=PATIENCE_S)
    futures += [lane.submit(number) for number in range(1, 7)]
    work.gate.set()
    assert [future.result(PATIENCE_S) for future in futures] == [0, 1, 4, 9, 16, 25, 36]
    assert work.batches == [[0], [1, 2, 3, 4], [5, 6]]
    lane.close()


def test_the_first_of_a_batch_waits_for_the_second(work: Work) -> None:
    work.gate.set()
    lane = Lane("test", work, batch=2, wait_s=PATIENCE_S)
    futures = [lane.submit(2), lane.submit(3)]
    assert [future.result(PATIENCE_S) for future in futures] == [4, 9]
    assert work.batches == [[2, 3]]
    lane.close()


def test_cancelled_entries_leave_the_queue_at_once(work: Work) -> None:
    lane = Lane("test", work)
    first = lane.submit(0)
    assert work.entered.acquire(timeout=PATIENCE_S)
    second, third = lane.submit(1), lane.submit(2)
    assert second.cancel()
    assert lane.count_waiting() == 1
    work.gate.set()
    assert (first.result(PATIENCE_S), third.result(PATIENCE_S)) == (0, 4)
    assert work.batches == [[0], [2]]
    lane.close()


def test_cancelling_a_task_takes_its_entry_out(work: Work) -> None:
    lane = Lane("test", work)

    async def cancel_the_second() -> int:
        first = asyncio.ensure_future(lane.run(3))
        await asyncio.to_thread(work.entered.acquire, timeout=PATIENCE_S)
        second = asyncio.ensure_future(lane.run(4))
        while not lane.count_waiting():
            await asyncio.sleep(0)
        second.cancel()
        with pytest.raises(asyncio.CancelledError):
            await second
        assert lane.count_waiting() == 0
        work.gate.set()
        return await first

    assert asyncio.run(cancel_the_second()) == 9
    assert work.batches == [[3]]
    lane.close()


def test_a_bad_item_spoils_no_other(work: Work) -> None:
    lane = Lane("test", work, batch=3)
    first = lane.submit(0)
    assert work.entered.acquire(timeout=PATIENCE_S)
    futures = [lane.submit(number) for number in (1, -1, 2)]
    work.gate.set()
    assert first.result(PATIENCE_S) == 0
    assert futures[0].result(PATIENCE_S) == 1
    assert futures[2].result(PATIENCE_S) == 4
    with pytest.raises(ValueError, match="minus one"):
        futures[1].result(PATIENCE_S)
    assert work.batches == [[0], [1, -1, 2], [1], [-1], [2]]
    lane.close()


def test_threads_work_at_a_time(work: Work) -> None:
    lane = Lane("test", work, threads=3)
    futures = [lane.submit(number) for number in range(3)]
    for _ in range(3):
        assert work.entered.acquire(timeout=PATIENCE_S)
    assert lane.longest_run_s > 0
    work.gate.set()
    assert [future.result(PATIENCE_S) for future in futures] == [0, 1, 4]
    eventually(lambda: lane.longest_run_s == 0)
    lane.close()


def test_closing_cancels_what_waits(work: Work) -> None:
    lane = Lane("test", work)
    first = lane.submit(0)
    assert work.entered.acquire(timeout=PATIENCE_S)
    second = lane.submit(1)
    closing = threading.Thread(target=lane.close)
    closing.start()
    with pytest.raises(CancelledError):
        second.result(PATIENCE_S)
    work.gate.set()
    closing.join(PATIENCE_S)
    assert first.result(PATIENCE_S) == 0
    with pytest.raises(RuntimeError, match="closed"):
        lane.submit(2)
