"""Progress and interruption of a build, which runs in a worker thread."""

import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager
from types import FrameType, ModuleType
from typing import Any, TypeVar

Result = TypeVar("Result")

_TICK_SECONDS = 0.1


class Interruption:
    """Whether the build was interrupted (Ctrl-C)."""

    def __init__(self) -> None:
        self.requested = False

    def check(self) -> None:
        """Raise KeyboardInterrupt if the build was interrupted."""
        if self.requested:
            raise KeyboardInterrupt


@contextmanager
def watch_interruption() -> Iterator[Interruption]:
    """Remember a SIGINT that comes while the block runs.

    Python raises KeyboardInterrupt wherever the main thread happens to be. In a finalizer or in a callback of
    a library the exception is printed and dropped, and the build would run to its end. `Interruption.check`
    raises it again.

    Nothing is remembered outside the main thread, which alone may set signal handlers, nor where SIGINT does
    not raise KeyboardInterrupt: a program that is started in the background ignores it, for example.
    """
    interruption = Interruption()
    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield interruption
        return

    def remember(number: int, frame: FrameType | None) -> None:
        interruption.requested = True
        signal.default_int_handler(number, frame)

    signal.signal(signal.SIGINT, remember)
    try:
        yield interruption
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def run_in_worker(work: Callable[[], Result], tick: Callable[[], None], cancel: Callable[[], None]) -> Result:
    """The result of `work`, which runs in another thread while this one calls `tick` ten times a second.

    When this thread is interrupted, or `tick` raises, `cancel` is called and the exception is raised here
    after `work` has ended. What `work` raises is raised here too.
    """
    future: Future[Result] = Future()

    def run() -> None:
        if not future.set_running_or_notify_cancel():
            return
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)

    thread = threading.Thread(target=run, name="sed-trt build", daemon=True)
    try:
        # An interrupt may come while this waits for the thread to start.
        thread.start()
        while not wait((future,), timeout=_TICK_SECONDS).done:
            tick()
    except BaseException:
        cancel()
        if not future.cancel():
            thread.join()
        raise
    return future.result()


class BuildState:
    """Progress of the build of one plan; read in one thread while the library's threads write it."""

    def __init__(self) -> None:
        self.cancelled = threading.Event()
        self._lock = threading.Lock()
        # Phase to its parent, its number of steps and the steps done, in the order they started.
        self._phases: dict[str, tuple[str | None, int, int]] = {}
        self._fraction = 0.0

    def start(self, phase: str, parent: str | None, steps: int) -> None:
        """A phase of so many steps begins, within its parent's current step."""
        with self._lock:
            self._phases[phase] = (parent, max(steps, 1), 0)

    def step(self, phase: str, step: int) -> bool:
        """A step, counted from 0, is done; returns whether the build shall continue."""
        with self._lock:
            if phase in self._phases:
                parent, steps, _ = self._phases[phase]
                self._phases[phase] = (parent, steps, step + 1)
        return not self.cancelled.is_set()

    def finish(self, phase: str) -> None:
        """A phase ends, complete or not."""
        with self._lock:
            self._phases.pop(phase, None)

    def progress(self) -> tuple[str, float]:
        """The innermost phase and the fraction of the build that is done, which never falls."""
        with self._lock:
            roots = [name for name, (parent, _, _) in self._phases.items() if parent is None]
            if roots:
                self._fraction = max(self._fraction, self._done(roots[0]))
            return next(reversed(self._phases), ""), self._fraction

    def _done(self, phase: str) -> float:
        _, steps, done = self._phases[phase]
        children = [name for name, (parent, _, _) in self._phases.items() if parent == phase]
        within = max((self._done(child) for child in children), default=0.0)
        return min(1.0, (done + within) / steps)


def progress_monitor(module: ModuleType, state: BuildState) -> Any:
    """An `IProgressMonitor` of the library `module` that writes to `state`."""

    class Monitor(module.IProgressMonitor):  # type: ignore[name-defined]
        def __init__(self) -> None:
            super().__init__()

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            state.start(phase_name, parent_phase, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            return state.step(phase_name, step)

        def phase_finish(self, phase_name: str) -> None:
            state.finish(phase_name)

    return Monitor()
