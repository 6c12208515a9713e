"""Work in another thread, and its interruption."""

import threading

import pytest

from sed_trt.engines.build.progress import in_worker


def nothing() -> None:
    pass


def test_result_comes_from_another_thread() -> None:
    assert in_worker(threading.current_thread, nothing, nothing) is not threading.current_thread()


def test_what_the_work_raises_is_raised_here() -> None:
    with pytest.raises(ZeroDivisionError):
        in_worker(lambda: 1 / 0, nothing, nothing)


@pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError])
def test_interrupt_cancels_and_waits(error: type[BaseException]) -> None:
    cancelled = threading.Event()
    ended = []

    def work() -> None:
        assert cancelled.wait(30)
        ended.append(True)

    def tick() -> None:
        raise error

    with pytest.raises(error):
        in_worker(work, tick, cancelled.set)
    assert ended == [True]


def test_ticks_come_while_the_work_goes_on() -> None:
    seen = threading.Event()
    assert in_worker(lambda: seen.wait(30), seen.set, nothing)


@pytest.mark.parametrize("started", [True, False])
def test_interrupt_while_the_thread_starts(started: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    start = threading.Thread.start
    running, cancelled = threading.Event(), threading.Event()
    ended: list[bool] = []
    threads: list[threading.Thread] = []

    def interrupted(thread: threading.Thread) -> None:
        threads.append(thread)
        if started:
            start(thread)
            assert running.wait(30)
        raise KeyboardInterrupt

    def work() -> None:
        running.set()
        ended.append(cancelled.wait(30))

    monkeypatch.setattr(threading.Thread, "start", interrupted)
    with pytest.raises(KeyboardInterrupt):
        in_worker(work, lambda: None, cancelled.set)
    monkeypatch.undo()
    assert ended == [True] * started
    if not started:
        # One that comes to run only now has nothing left to do.
        threads[0].start()
        threads[0].join()
        assert not ended
