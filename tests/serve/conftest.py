"""Serverson loopback in a thread: on sed-tiny, and on stages in numpy that a test can hold up."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from sed_trt.runtime import Segmenter
from sed_trt.serve.run import Server
from sed_trt.serve.settings import Settings
from sed_trt.tests.fakes.bundle import write_fake_bundle
from sed_trt.tests.fakes.engines import FakeEngine, FakeEngines
from sed_trt.tests.fakes.images import png_bytes

# Of anything that a test waits for; no test takes so long.
PATIENCE_S = 60

Arrays = Mapping[str, Any]
Serving = Callable[..., AbstractContextManager["Client"]]


def eventually(condition: Callable[[], object]) -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "the condition never held"
        time.sleep(0.005)


class GatedEngine(FakeEngine):
    """A stage in numpy that waits while its gate is shut, and fails while it is told to."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Semaphore(0)
        self.error: Exception | None = None

    def run(self, inputs: Arrays) -> dict[str, np.ndarray]:
        """Run the stage once the gate is open."""
        self.entered.release()
        assert self.gate.wait(PATIENCE_S)
        if self.error is not None:
            raise self.error
        return super().run(inputs)


class Client(httpx.Client):
    """A client of a server that runs in a thread.

    Attributes:
        server: the server.
        engines: its stages in numpy; those of sed-tiny are not there.
    """

    def __init__(self, server: Server, engines: FakeEngines) -> None:
        super().__init__(base_url=server.url, timeout=PATIENCE_S)
        self.server = server
        self.engines = engines

    def stage(self, name: str) -> GatedEngine:
        """A stage in numpy."""
        engine = self.engines.engines[name]
        assert isinstance(engine, GatedEngine)
        return engine

    def forget_runs(self) -> None:
        """Forget what the stages did so far."""
        for name in self.engines.engines:
            stage = self.stage(name)
            stage.shapes.clear()
            while stage.entered.acquire(blocking=False):
                pass


@contextmanager
def running(server: Server) -> Iterator[None]:
    """Run a server in a thread, and stop it at the end."""
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        yield
    finally:
        server.stop()
        thread.join(PATIENCE_S)
        assert not thread.is_alive()


@pytest.fixture(scope="package")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Serving:
    """Serve stages in numpy, which know red, green, blue and white: `with serving(queue=2) as client`.

    The keywords are those of `Settings`, and those of `Server` in `server`. With `wait` it is ready at once.
    """
    bundle = write_fake_bundle(tmp_path_factory.mktemp("serve") / "colours")

    @contextmanager
    def serve(
        server: Mapping[str, Any] | None = None,
        wait: bool = True,
        **settings: Any,
    ) -> Iterator[Client]:
        engines = FakeEngines()
        engines.engines = {name: GatedEngine(name) for name in engines.engines}
        segmenter = Segmenter(bundle, engines=engines, vocabularies=1)
        instance = Server(
            {"colours": segmenter},
            Settings(**{"batch_wait_ms": 0, "drain_s": PATIENCE_S, **settings}),
            port=0,
            log_level="error",
            **(server or {}),
        )
        with running(instance), Client(instance, engines) as opened:
            try:
                if wait:
                    eventually(lambda: instance.service.ready)
                    opened.forget_runs()
                yield opened
            finally:
                for name in engines.engines:
                    opened.stage(name).gate.set()

    return serve


@pytest.fixture(scope="module")
def usual(serving: Serving) -> Iterator[Client]:
    """A client of a server on stages in numpy with the usual settings, for the tests of a file."""
    with serving() as opened:
        yield opened


@pytest.fixture
def client(usual: Client) -> Client:
    """The same, whose stages did nothing yet."""
    usual.forget_runs()
    return usual


@pytest.fixture(scope="package")
def tiny_segmenter(tiny_bundle: Path) -> Segmenter:
    """sed-tiny, opened once."""
    return Segmenter(tiny_bundle)


@pytest.fixture(scope="package")
def tiny_server(tiny_segmenter: Segmenter) -> Iterator[Server]:
    """A server of sed-tiny, ready for requests."""
    server = Server({"tiny": tiny_segmenter}, Settings(), port=0, log_level="error")
    with running(server):
        eventually(lambda: server.service.ready)
        yield server


@pytest.fixture
def tiny(tiny_server: Server) -> Iterator[httpx.Client]:
    """A client of the server of sed-tiny."""
    with httpx.Client(base_url=tiny_server.url, timeout=PATIENCE_S) as client:
        yield client


@pytest.fixture(scope="session")
def photo() -> np.ndarray:
    """Noise over a gradient, uint8 (90, 130, 3)."""
    ramp = np.linspace(0, 200, 130)[None, :, None] * np.ones((90, 1, 3))
    noise = np.random.default_rng(0).integers(0, 50, (90, 130, 3))
    return (ramp + noise).astype(np.uint8)


@pytest.fixture(scope="session")
def photo_file(photo: np.ndarray) -> bytes:
    """The same as a PNG file."""
    return png_bytes(photo)
