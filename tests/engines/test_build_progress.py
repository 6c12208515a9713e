"""The progress of a build, from the phases that a library reports; its worker thread; its interruption."""

import os
import signal
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from sed_trt.engines.build.progress import BuildState, progress_monitor, run_in_worker, watch_interruption
from sed_trt.tests.fakes.tensorrt import fake_tensorrt


def test_phases_within_phases() -> None:
    state = BuildState()
    monitor = progress_monitor(fake_tensorrt("11.0"), state)
    assert state.progress() == ("", 0.0)
    monitor.phase_start("build", None, 4)
    monitor.step_complete("build", 0)
    assert state.progress() == ("build", 0.25)
    monitor.phase_start("tactics", "build", 2)
    monitor.step_complete("tactics", 0)
    assert state.progress() == ("tactics", 0.375)
    monitor.phase_finish("tactics")
    monitor.step_complete("build", 1)
    assert state.progress() == ("build", 0.5)
    monitor.phase_finish("build")
    assert state.progress() == ("", 0.5)


def test_progress_never_falls() -> None:
    state = BuildState()
    state.start("build", None, 2)
    state.start("first", "build", 1)
    state.step("first", 0)
    assert state.progress()[1] == 0.5
    state.finish("first")
    assert state.progress()[1] == 0.5


@pytest.mark.parametrize("steps", [0, 1])
def test_more_steps_than_were_announced(steps: int) -> None:
    state = BuildState()
    state.start("build", None, steps)
    state.step("build", 5)
    assert state.progress() == ("build", 1.0)


def test_phases_that_were_never_started() -> None:
    state = BuildState()
    assert state.step("unknown", 0)
    state.finish("unknown")
    assert state.progress() == ("", 0.0)


def test_cancelling_stops_the_next_step() -> None:
    state = BuildState()
    monitor = progress_monitor(fake_tensorrt("11.0"), state)
    monitor.phase_start("build", None, 4)
    assert monitor.step_complete("build", 0)
    state.cancelled.set()
    assert not monitor.step_complete("build", 1)


def test_the_real_monitor_is_written_to() -> None:
    module = pytest.importorskip("tensorrt_rtx")
    state = BuildState()
    monitor = progress_monitor(module, state)
    assert isinstance(monitor, module.IProgressMonitor)
    monitor.phase_start("build", None, 2)
    assert state.progress() == ("build", 0.0)


def nothing() -> None:
    pass


def test_result_comes_from_another_thread() -> None:
    assert run_in_worker(threading.current_thread, nothing, nothing) is not threading.current_thread()


def test_what_the_work_raises_is_raised_here() -> None:
    with pytest.raises(ZeroDivisionError):
        run_in_worker(lambda: 1 / 0, nothing, nothing)


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
        run_in_worker(work, tick, cancelled.set)
    assert ended == [True]


def test_ticks_come_while_the_work_goes_on() -> None:
    seen = threading.Event()
    assert run_in_worker(lambda: seen.wait(30), seen.set, nothing)


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
        run_in_worker(work, lambda: None, cancelled.set)
    monkeypatch.undo()
    assert ended == [True] * started
    if not started:
        # One that comes to run only now has nothing left to do.
        threads[0].start()
        threads[0].join()
        assert not ended


class Interrupting:
    """Interrupts the process in its finalizer, where Python drops the exception."""

    def __del__(self) -> None:
        os.kill(os.getpid(), signal.SIGINT)


@pytest.fixture
def _default_handler() -> Iterator[None]:
    """Python's own handler, though the tests may run in the background, where SIGINT is ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_default_handler")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_interruption_that_python_drops_is_remembered() -> None:
    with watch_interruption() as interruption:
        interruption.check()
        Interrupting()
        with pytest.raises(KeyboardInterrupt):
            interruption.check()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.usefixtures("_default_handler")
def test_an_interruption_is_raised_at_once() -> None:
    with pytest.raises(KeyboardInterrupt), watch_interruption():
        os.kill(os.getpid(), signal.SIGINT)
        pytest.fail("the interruption was not raised")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.usefixtures("_default_handler")
@pytest.mark.parametrize("handler", [signal.SIG_IGN, lambda number, frame: None])
def test_other_handlers_stay(handler: Any) -> None:
    signal.signal(signal.SIGINT, handler)
    with watch_interruption() as interruption:
        os.kill(os.getpid(), signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is handler
    assert not interruption.requested
    assert signal.getsignal(signal.SIGINT) is handler


def test_other_threads_set_no_handler() -> None:
    before = signal.getsignal(signal.SIGINT)

    def watched() -> object:
        with watch_interruption():
            return signal.getsignal(signal.SIGINT)

    assert run_in_worker(watched, nothing, nothing) is before
