"""`sed-trt bench serve`: times, throughput and rejections of a running server under load, and its memory."""

import io
import json
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from PIL import Image

from ...errors import InputError
from ...files import read_file
from ..results_file import CpuTimes, other_load_since, setting
from .load import ACCEPTED, REJECTED, Load, Request, Sample, Server, answer, run_load
from .rounds import Report, percentiles, scene_images

# How often the server's memory is read while it is loaded.
SAMPLE_S = 0.5
# Side of the image that is sent where none is given.
SCENE_SIDE = 512
CATEGORIES = "sky, grass, road, water, mountain, tree, red car, blue house, yellow hat, green boat"


def measure_serving(
    server: Server,
    loads: Sequence[Load],
    requests: int,
    report: Report,
    image: Path | None = None,
    categories: str | None = None,
    vocabulary: str | None = None,
    bundle: str | None = None,
    encoded: bool = False,
) -> dict[str, Any]:
    """Load a server in several ways, one after the other.

    Args:
        server: to load.
        loads: the ways; those relative to its capacity after a closed loop.
        requests: of each of them.
        report: called with the requests done.
        image: file to send; None is a drawn scene.
        categories: names to segment into, None being some of the scenes', or `vocabulary`.
        vocabulary: a list that the server knows by name.
        bundle: of the server; None is its first.
        encoded: whether the image is sent once, and the requests name it.

    Returns:
        The content of a results file, without its heading.

    Raises:
        InputError: the server cannot be reached, or does not answer the request when it is idle; a load
            relative to its capacity has no closed loop before it.
    """
    bundles = json.loads(answer(server, Request("GET", "/v1/bundles")))["bundles"]
    used = next((each for each in bundles if each["name"] == bundle), None if bundle else bundles[0])
    if used is None:
        known = ", ".join(each["name"] for each in bundles)
        raise InputError(f"--bundle: the server has no {bundle!r:.60}; choose one of {known}")
    query = {"bundle": used["name"], "output": "labels"}
    query |= {"vocabulary": vocabulary} if vocabulary else {"categories": categories or CATEGORIES}
    picture = _scene() if image is None else _content_of(image)
    request = _request(server, picture, query, encoded)
    # The first request embeds the names, which is no part of the load.
    first = json.loads(answer(server, request))
    rows: list[dict[str, Any]] = []
    before = CpuTimes.now()
    used_before = server_metrics(server).get("process_cpu_seconds_total")
    for load in loads:
        rows.append(_row(server, request, _with_rate(load, rows), requests, report))
    other = other_load_since(before)
    used_after = server_metrics(server).get("process_cpu_seconds_total")
    if other is not None and before is not None and used_before is not None and used_after is not None:
        # The server's own work is what is measured, not a disturbance.
        other = max(0.0, other - (used_after - used_before) / (time.monotonic() - before.wall))
    return {
        **setting(),
        "bundle": used["name"],
        "preset": used["preset"],
        "precision": used["precision"],
        "backend": used["backend"],
        "image": [first["width"], first["height"]],
        "categories": len(first["names"]),
        "encoded": encoded,
        "other_load": other,
        "results": rows,
    }


def _scene() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(scene_images(1, SCENE_SIDE)[0]).save(buffer, format="PNG")
    return buffer.getvalue()


def _content_of(image: Path) -> bytes:
    try:
        return read_file(image)
    except OSError as error:
        raise InputError(f"{image}: cannot be read ({error.strerror}); give an image file") from error


def _request(server: Server, picture: bytes, query: Mapping[str, str], encoded: bool) -> Request:
    """The request to repeat; with `encoded` the image is sent now."""
    if not encoded:
        return Request("POST", f"/v1/segment?{urlencode(query)}", picture)
    where = f"/v1/images?{urlencode({'bundle': query['bundle']})}"
    image = json.loads(answer(server, Request("POST", where, picture)))["image"]
    body = json.dumps({**query, "image_id": image}).encode()
    return Request("POST", "/v1/segment", body, "application/json")


def _with_rate(load: Load, rows: Sequence[Mapping[str, Any]]) -> Load:
    if load.times_capacity is None:
        return load
    capacity = max((row["throughput"] for row in rows if row["clients"]), default=0.0)
    if not capacity:
        raise InputError(
            f"--rate: {load.times_capacity:g}x needs a closed loop with accepted requests; give --clients"
        )
    return Load(rate=load.times_capacity * capacity, times_capacity=load.times_capacity)


def _row(server: Server, request: Request, load: Load, requests: int, report: Report) -> dict[str, Any]:
    """Run one load and sum it up."""
    what = f"{load.clients} clients" if load.clients else f"{load.rate:.1f} requests a second"
    started = time.perf_counter()
    with _memory(server) as megabytes:
        samples = run_load(server, request, load, requests, lambda done: report(what, done, requests))
    seconds = time.perf_counter() - started
    return {
        "clients": load.clients or None,
        "rate": load.rate,
        "times_capacity": load.times_capacity,
        "requests": requests,
        "seconds": seconds,
        **summary(samples),
        "throughput": sum(sample.status == ACCEPTED for sample in samples) / seconds,
        "memory_mb": _extent(megabytes),
    }


def _extent(megabytes: Sequence[float]) -> dict[str, float] | None:
    """First, largest and last value; None where there are none."""
    if not megabytes:
        return None
    return {"start": megabytes[0], "peak": max(megabytes), "end": megabytes[-1]}


def summary(samples: Sequence[Sample]) -> dict[str, Any]:
    """Counts of requests by their outcome, and percentiles of the accepted ones' times."""
    statuses = Counter(sample.status for sample in samples if sample.status is not None)
    accepted = [1000 * sample.seconds for sample in samples if sample.status == ACCEPTED]
    others = {str(status): count for status, count in statuses.items() if status not in (ACCEPTED, REJECTED)}
    return {
        "accepted": len(accepted),
        "rejected": statuses[REJECTED],
        "other_statuses": others,
        "failures": dict(Counter(sample.failure for sample in samples if sample.failure)),
        **(percentiles(accepted) if accepted else {}),
    }


@contextmanager
def _memory(server: Server) -> Iterator[list[float]]:
    """The server's resident memory in MB from the block's start to its end; empty where it does not tell."""
    megabytes: list[float] = []
    ended = threading.Event()

    def sample() -> None:
        resident = server_metrics(server).get("process_resident_memory_bytes")
        if resident is not None:
            megabytes.append(resident / 1e6)

    def watch() -> None:
        while not ended.wait(SAMPLE_S):
            sample()

    sample()
    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield megabytes
    finally:
        ended.set()
        thread.join()
        sample()


def server_metrics(server: Server) -> dict[str, float]:
    """The server's figures without labels by name; empty where it gives none."""
    try:
        text = answer(server, Request("GET", "/metrics")).decode(errors="replace")
    except InputError:
        return {}
    lines = (line.split() for line in text.splitlines() if line and not line.startswith("#"))
    return {fields[0]: float(fields[1]) for fields in lines if len(fields) == 2 and "{" not in fields[0]}
