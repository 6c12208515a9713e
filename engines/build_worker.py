"""Long work in a thread of its own, so that Ctrl-C reaches the main thread and can stop it."""

import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import TypeVar

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
