"""Load on an HTTP server: closed loops of clients that wait for their answers, open loops at a given rate."""

import http.client
import ipaddress
import json
import random
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate
from urllib.parse import urlsplit

from ...errors import InputError
from ..results_file import one_line

# Threads of an open loop: requests beyond these wait here, and their wait counts.
MAX_IN_FLIGHT = 256
TIMEOUT_S = 120.0
# Environment variable with the API key.
KEY_VARIABLE = "SED_TRT_API_KEY"
ACCEPTED, REJECTED = 200, 429
# The failures of a connection; http.client has exceptions of its own.
FAILURES = (OSError, http.client.HTTPException)


@dataclass(frozen=True)
class Server:
    """Where a server is, and the key it asks for.

    Attributes:
        url: as given.
        host: name or address.
        port: number.
        prefix: path before those of the server's requests, without "/" at its end.
        key: API key; "" where it needs none.
    """

    url: str
    host: str
    port: int
    prefix: str
    key: str

    @classmethod
    def at(cls, url: str, key: str = "", remote: bool = False) -> "Server":
        """The server at an http address.

        Raises:
            InputError: it is no such address, or one of another machine without `remote`.
        """
        parts = urlsplit(url if "//" in url else f"//{url}", scheme="http")
        try:
            port = parts.port or 80
        except ValueError as error:
            raise InputError(f"{url}: has a bad port ({error}); give http://HOST:PORT") from error
        if parts.scheme != "http" or not parts.hostname:
            raise InputError(f"{url}: is no address of a server, expected http://HOST:PORT")
        if not remote and not _is_loopback(parts.hostname):
            raise InputError(
                f"{url}: is another machine, which this test would load fully; "
                "add --remote if you may do that"
            )
        return cls(url, parts.hostname, port, parts.path.rstrip("/"), key)


def _is_loopback(host: str) -> bool:
    """Whether all addresses of a host are this machine's own; False for an unknown host."""
    try:
        addresses = {str(entry[4][0]) for entry in socket.getaddrinfo(host, None)}
    except OSError:
        return False
    return all(ipaddress.ip_address(address.split("%")[0]).is_loopback for address in addresses)


@dataclass(frozen=True)
class Request:
    """One request, sent again and again."""

    method: str
    path: str
    body: bytes = b""
    content_type: str = "application/octet-stream"


class Client:
    """One connection to a server, which is opened again when it broke. For one thread."""

    def __init__(self, server: Server) -> None:
        """No connection is opened yet."""
        self._server = server
        self._connection = http.client.HTTPConnection(server.host, server.port, timeout=TIMEOUT_S)

    def send(self, request: Request) -> tuple[int, http.client.HTTPMessage, bytes]:
        """Status, headers and body of the answer; raises one of `FAILURES` where there is none."""
        reused = self._connection.sock is not None
        try:
            return self._exchange(request)
        except (http.client.RemoteDisconnected, BrokenPipeError, ConnectionResetError):
            # Servers close connections that were idle for some seconds.
            if not reused:
                raise
        return self._exchange(request)

    def _exchange(self, request: Request) -> tuple[int, http.client.HTTPMessage, bytes]:
        headers = {"Content-Type": request.content_type} if request.body else {}
        if self._server.key:
            headers["X-API-Key"] = self._server.key
        path = self._server.prefix + request.path
        try:
            self._connection.request(request.method, path, request.body or None, headers)
            response = self._connection.getresponse()
            return response.status, response.headers, response.read()
        except FAILURES:
            self._connection.close()
            raise

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


def answer(server: Server, request: Request) -> bytes:
    """The body that a server answers to one request.

    Raises:
        InputError: it cannot be reached, or answers with an error.
    """
    client = Client(server)
    try:
        status, _, body = client.send(request)
    except FAILURES as error:
        raise InputError(
            f"{server.url}: cannot be reached ({one_line(error)}); start it with `sed-trt serve BUNDLE`"
        ) from error
    finally:
        client.close()
    if not 200 <= status < 300:
        raise InputError(f"{server.url}: answers {request.path:.60} with {status} ({_error_line(body)})")
    return body


def _error_line(body: bytes) -> str:
    try:
        return str(json.loads(body)["error"])
    except (ValueError, LookupError, TypeError):
        return body[:200].decode(errors="replace")


@dataclass(frozen=True)
class Load:
    """One row of the test.

    Attributes:
        clients: of a closed loop, where each waits for its answer before it sends again; 0 for an open loop.
        rate: requests per second of an open loop, whatever the answers.
        times_capacity: instead of `rate`, times the highest throughput of the closed loops before.
    """

    clients: int = 0
    rate: float | None = None
    times_capacity: float | None = None

    @classmethod
    def parse_rate(cls, text: str) -> "Load":
        """An open loop from "12.5", requests per second, or "4x", times what the closed loops reached.

        Raises:
            InputError: the text is neither.
        """
        number = text.strip().removesuffix("x")
        try:
            rate = float(number)
        except ValueError:
            rate = 0.0
        if not 0 < rate < 1e6:
            raise InputError(
                f"--rate: {text.strip()!r:.60} is unknown; give requests per second such as 12.5, or 4x"
            )
        return cls(times_capacity=rate) if text.strip().endswith("x") else cls(rate=rate)


@dataclass(frozen=True)
class Sample:
    """One answer: its status, None where there was none; the failure; seconds since it was due."""

    status: int | None
    failure: str
    seconds: float


def run_load(
    server: Server,
    request: Request,
    load: Load,
    requests: int,
    progress: Callable[[int], None] = lambda done: None,
) -> list[Sample]:
    """Send a request so many times.

    A client of a closed loop that is rejected waits as long as the server asks. The requests of an open loop
    come at random moments (exponential gaps, the same in every run) and do not wait for each other; their
    times count from the moment they were due, those spent here for a free connection included.

    Args:
        server: to send to.
        request: what to send.
        load: how.
        requests: how often.
        progress: called with the number of answers so far.
    """
    due = _arrivals(load.rate, requests) if load.rate else [0.0] * requests
    numbers = iter(range(requests))
    lock = threading.Lock()
    samples: list[Sample] = []
    start = time.perf_counter()

    def work() -> None:
        client = Client(server)
        while True:
            with lock:
                number = next(numbers, None)
            if number is None:
                break
            wait = start + due[number] - time.perf_counter()
            if wait > 0:
                time.sleep(wait)
            begin = start + due[number] if load.rate else time.perf_counter()
            sample, pause = _sample(client, request, begin)
            with lock:
                samples.append(sample)
                progress(len(samples))
            if load.clients and number + 1 < requests:
                time.sleep(pause)
        client.close()

    workers = load.clients or min(requests, MAX_IN_FLIGHT)
    threads = [threading.Thread(target=work, daemon=True) for _ in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return samples


def _arrivals(rate: float, requests: int) -> list[float]:
    """Moments in seconds, `rate` a second on average."""
    random_gaps = random.Random(0)
    return list(accumulate(random_gaps.expovariate(rate) for _ in range(requests)))


def _sample(client: Client, request: Request, begin: float) -> tuple[Sample, float]:
    """Send once; also the seconds that the server asks to wait before the next request."""
    try:
        status, headers, _ = client.send(request)
    except FAILURES as error:
        return Sample(None, one_line(error), time.perf_counter() - begin), 0.0
    pause = float(headers.get("Retry-After", "0")) if status == REJECTED else 0.0
    return Sample(status, "", time.perf_counter() - begin), pause
