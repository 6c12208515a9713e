"""A process that may crash or hang, and how it ended."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

OUTPUT_LINES = 6
OUTPUT_CHARACTERS = 1200


@dataclass(frozen=True)
class Ending:
    """How a process ended.

    Attributes:
        state: "done", "crashed" or "stopped".
        reason: why it is not "done", with the last that it printed.
        seconds: how long it ran.
    """

    state: str
    reason: str | None
    seconds: float


def run_child(command: Sequence[str], folder: Path, limit: float, variables: dict[str, str]) -> Ending:
    """Run a command for at most `limit` seconds; what it prints goes to a file in `folder`.

    When time is up, or this process is interrupted, it is killed with all that it started. `variables` are
    added to the environment.
    """
    started = time.monotonic()
    output = folder / "output.txt"
    with (
        output.open("wb") as file,
        subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            # A group of its own, so that what it starts can be killed with it.
            process_group=0,
            env=os.environ | variables,
        ) as process,
        _killed_at_last(process),
    ):
        try:
            code: int | None = process.wait(limit)
        except subprocess.TimeoutExpired:
            code = None
    seconds = time.monotonic() - started
    if code == 0:
        return Ending("done", None, seconds)
    state, reason = _verdict(code, limit)
    last = _last_lines(output)
    return Ending(state, f"{reason}; it printed last: {last}" if last else reason, seconds)


def _verdict(code: int | None, limit: float) -> tuple[str, str]:
    if code is None:
        return "stopped", f"its limit of {limit:.0f} s was over"
    if code > 0:
        return "crashed", f"ended with exit status {code}"
    try:
        return "crashed", f"died by {signal.Signals(-code).name}"
    except ValueError:
        return "crashed", f"died by signal {-code}"


@contextmanager
def _killed_at_last(process: "subprocess.Popen[bytes]") -> Iterator[None]:
    try:
        yield
    finally:
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def _last_lines(output: Path) -> str:
    lines = output.read_text(errors="replace").splitlines()
    text = " | ".join([line.strip() for line in lines if line.strip()][-OUTPUT_LINES:])
    return text[-OUTPUT_CHARACTERS:]
