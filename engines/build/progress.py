"""Progress and cancellation of a build, which runs in a thread of its own."""

import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from types import ModuleType
from typing import Any, TypeVar


class BuildState:
    """How far a build is; read in one thread while the library's threads write it."""

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
        """A step, counted from 0, is done; returns whether to go on."""
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


Result = TypeVar("Result")

_TICK_SECONDS = 0.1


def in_worker(work: Callable[[], Result], tick: Callable[[], None], cancel: Callable[[], None]) -> Result:
    """The result of `work`, run in another thread while this one calls `tick` now and then.

    When this thread is interrupted, or `tick` raises, `cancel` is called and the exception leaves only after
    `work` has come to its end. What `work` raises is raised here.
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
