"""A real `sed-trt serve` in a process of its own."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

# For what comes at once unless a test fails.
PATIENCE_S = 120.0


@contextmanager
def serving(arguments: Sequence[str], folder: Path) -> Iterator[str]:
    """Start a server on a free port of this machine, and stop it at the end.

    Args:
        arguments: of `sed-trt serve`.
        folder: for its cache and what it prints.

    Yields:
        Its address, once it is ready.
    """
    program = [sys.executable, "-m", "sed_trt.cli.main", "serve", *arguments, "--port", "0"]
    printed = folder / "server.txt"
    environment = os.environ | {"SED_TRT_CACHE": str(folder / "cache"), "PYTHONUNBUFFERED": "1"}
    with printed.open("wb") as file:
        process = subprocess.Popen(program, stdout=file, stderr=subprocess.STDOUT, env=environment)
    try:
        address = _address(process, printed)
        _wait_until_ready(address, printed)
        yield address
    finally:
        process.terminate()
        try:
            process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            raise


def _address(process: subprocess.Popen[bytes], printed: Path) -> str:
    """The address that the server prints once it listens."""
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end and process.poll() is None:
        address = re.search(r"http://[^\s/]+:\d+", printed.read_text(errors="replace"))
        if address:
            return address[0]
        time.sleep(0.05)
    raise AssertionError(f"the server does not start:\n{printed.read_text(errors='replace')}")


def _wait_until_ready(address: str, printed: Path) -> None:
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        try:
            with urlopen(f"{address}/readyz"):
                return
        except HTTPError:
            time.sleep(0.05)
    raise AssertionError(f"the server is not ready:\n{printed.read_text(errors='replace')}")
