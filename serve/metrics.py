"""What a server counts, in the text format of Prometheus, and the middleware that times requests."""

import time
from collections.abc import Callable, Mapping, Sequence

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from starlette.types import ASGIApp, Message, Receive, Scope, Send

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_CATEGORIES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
_BATCHES = (1, 2, 3, 4, 6, 8, 16)
# Clients may send any method and path, but labels must be few.
_METHODS = ("DELETE", "GET", "HEAD", "OPTIONS", "POST", "PUT")
_NO_ROUTE = "other"


class Metrics:
    """The metrics of one server."""

    def __init__(self) -> None:
        # When each series began is of no use to anybody, and doubles their number.
        disable_created_metrics()
        self._registry = CollectorRegistry()
        # Memory, processor time and open files of this process.
        ProcessCollector(registry=self._registry)
        self._gauges: dict[str, Gauge] = {}
        self._requests = self._counter(
            "requests", "Requests by route and status.", "route", "method", "status"
        )
        self._request_s = self._histogram("request_seconds", "Time of requests by route.", _SECONDS, "route")
        self._stage_s = self._histogram(
            "stage_seconds", "Time of each step of an image.", _SECONDS, "bundle", "stage"
        )
        self._queue_s = self._histogram(
            "queue_seconds", "Time that answered images waited for others.", _SECONDS, "bundle"
        )
        self._kept = self._histogram(
            "kept_categories", "Categories left after each rejection.", _CATEGORIES, "bundle", "point"
        )
        self._batches = self._histogram(
            "encoder_batch_images", "Images that the encoder took together.", _BATCHES, "bundle"
        )
        self._lookups = self._counter(
            "cache_lookups", "Look-ups of embedded vocabularies and encoded images.", "cache", "outcome"
        )
        self._rejected = self._counter("rejected", "Requests turned away as the server was busy.", "queue")
        self._abandoned = self._counter("abandoned", "Requests given up, by who gave up.", "by")

    def image_done(
        self, bundle: str, timings_ms: Mapping[str, float], kept: Sequence[int], queue_ms: float
    ) -> None:
        """Count a segmented image: the times of the steps of this request, and what it waited."""
        self.steps_done(bundle, timings_ms)
        for point, count in enumerate(kept):
            self._kept.labels(bundle, str(point)).observe(count)
        self._queue_s.labels(bundle).observe(queue_ms / 1000)

    def steps_done(self, bundle: str, timings_ms: Mapping[str, float]) -> None:
        """Count the times of an image's steps, in milliseconds."""
        for stage, milliseconds in timings_ms.items():
            self._stage_s.labels(bundle, stage).observe(milliseconds / 1000)

    def batch_done(self, bundle: str, images: int) -> None:
        """Count a run of the encoder."""
        self._batches.labels(bundle).observe(images)

    def looked_up(self, cache: str, hit: bool) -> None:
        """Count a look-up in the cache "vocabulary" or "image"."""
        self._lookups.labels(cache, "hit" if hit else "miss").inc()

    def rejected(self, queue: str) -> None:
        """Count a request that was turned away since `queue` was full."""
        self._rejected.labels(queue).inc()

    def abandoned(self, by: str) -> None:
        """Count a request that the "client" or the "timeout" gave up."""
        self._abandoned.labels(by).inc()

    def request_done(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count an answer."""
        self._requests.labels(route, method, str(status)).inc()
        self._request_s.labels(route).observe(seconds)

    def watch(self, name: str, description: str, read: Callable[[], float], **labels: str) -> None:
        """Show what `read` gives, whenever the metrics are asked for, as a gauge with these labels."""
        gauge = self._gauges.get(name)
        if gauge is None:
            gauge = self._gauges[name] = Gauge(
                f"sed_trt_{name}", description, list(labels), registry=self._registry
            )
        (gauge.labels(**labels) if labels else gauge).set_function(read)

    def text(self) -> bytes:
        """All metrics in the text format."""
        return generate_latest(self._registry)

    def _counter(self, name: str, description: str, *labels: str) -> Counter:
        return Counter(f"sed_trt_{name}", description, labels, registry=self._registry)

    def _histogram(self, name: str, description: str, buckets: Sequence[float], *labels: str) -> Histogram:
        return Histogram(f"sed_trt_{name}", description, labels, buckets=buckets, registry=self._registry)


class TimedRequests:
    """Middleware that counts every answer by its route."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        # What a server answers to an error that nobody caught.
        status = 500
        start = time.perf_counter()

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, watched)
        finally:
            route = getattr(scope.get("route"), "path", _NO_ROUTE)
            method = scope["method"] if scope["method"] in _METHODS else _NO_ROUTE
            self._metrics.request_done(route, method, status, time.perf_counter() - start)
