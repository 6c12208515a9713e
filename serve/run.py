"""The process of a server: its socket, uvicorn, and how it ends."""

import copy
import math
import signal
import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn
from uvicorn.config import LOGGING_CONFIG

from ..errors import InputError
from ..runtime import Segmenter
from .app import build_app
from .service import Service
from .settings import Settings, check_exposure

_BACKLOG = 2048
# Longer than the 60 s of usual load balancers, which would else send requests into closing connections.
_KEEP_ALIVE_S = 75


class Server:
    """A server that is bound to a port and ready to run.

    Attributes:
        url: where it listens.
        service: what answers its requests.
    """

    def __init__(
        self,
        segmenters: Mapping[str, Segmenter],
        settings: Settings,
        host: str = "127.0.0.1",
        port: int = 8000,
        keys: Sequence[str] = (),
        origins: Sequence[str] = (),
        examples: Path | None = None,
        vocabularies: Mapping[str, list[str]] | None = None,
        log_level: str = "info",
    ) -> None:
        """Bind the port and start the threads of the bundles' owners.

        Args:
            segmenters: opened bundles by name, the default first; at least one.
            settings: limits and times.
            host: address to listen on.
            port: 0 takes a free one.
            keys: API keys, which any but a loopback address needs.
            origins: web sites whose pages may use the server.
            examples: folder of example images.
            vocabularies: category names by name, registered before the server is ready.
            log_level: of uvicorn.

        Raises:
            InputError: there are no keys for that address, the port is taken, or the examples cannot be read.
        """
        check_exposure(host, keys)
        self._failure: BaseException | None = None
        self._socket = _bind(host, port)
        self.service = Service(settings, segmenters, vocabularies)
        try:
            app = build_app(self.service, keys, origins, examples, self._fail)
        except BaseException:
            self.service.close()
            self._socket.close()
            raise
        shown = f"[{host}]" if ":" in host else host
        self.url = f"http://{shown}:{self._socket.getsockname()[1]}"
        self._server = uvicorn.Server(
            uvicorn.Config(
                app,
                log_level=log_level,
                log_config=_log_config(log_level),
                lifespan="on",
                ws="none",
                server_header=False,
                proxy_headers=False,
                timeout_keep_alive=_KEEP_ALIVE_S,
                timeout_graceful_shutdown=math.ceil(settings.drain_s),
            )
        )

    def run(self) -> None:
        """Serve until `stop`, and in a main thread until SIGTERM or SIGINT.

        Then no request is taken any more, and those under way are answered.

        Raises:
            InputError: the server cannot become ready.
            KeyboardInterrupt: SIGINT ended it.
        """
        with _sigterm_ends_well():
            self._server.run(sockets=[self._socket])
        if self._failure is not None:
            raise self._failure

    def stop(self) -> None:
        """Let `run` end after the requests under way. Any thread may call this."""
        self._server.should_exit = True

    def _fail(self, error: BaseException) -> None:
        self._failure = error
        self.stop()


@contextmanager
def _sigterm_ends_well() -> Iterator[None]:
    """Let the SIGTERM that uvicorn raises anew after it ended do nothing within the block."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    former = signal.signal(signal.SIGTERM, lambda number, frame: None)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, former)


def _log_config(level: str) -> dict[str, Any]:
    """The logging of uvicorn, and of this package in the same form."""
    config = copy.deepcopy(LOGGING_CONFIG)
    config["loggers"][__package__] = {"handlers": ["default"], "level": level.upper()}
    return config


def _bind(host: str, port: int) -> socket.socket:
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address, family=family, backlog=_BACKLOG)
    except (OSError, OverflowError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(
            f"host and port: {host}:{port} cannot be listened on ({reason}); choose others"
        ) from error
