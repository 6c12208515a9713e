"""A server under more load than it can carry: every request is answered or refused, and memory stays flat."""

from pathlib import Path

import pytest

from sed_trt.benchmarks.speed.load import Load, Server
from sed_trt.benchmarks.speed.serving import measure_serving
from sed_trt.tests.fakes.server import serving

# To find the capacity, and to see all sizes once before memory is compared.
FIRST_REQUESTS = 80
# Growth of the server's memory that its allocator may take.
MAX_GROWTH_MB = 64.0


@pytest.mark.parametrize("requests", [80, pytest.param(10_000, marks=pytest.mark.slow)])
def test_overload_is_refused_and_costs_no_memory(tiny_bundle: Path, tmp_path: Path, requests: int) -> None:
    with serving([str(tiny_bundle), "--queue", "4"], tmp_path) as url:
        server = Server.at(url)
        (closed,) = measure_serving(server, [Load(clients=2)], FIRST_REQUESTS, _report)["results"]
        overload = Load(rate=4 * closed["throughput"])
        (row,) = measure_serving(server, [overload], requests, _report)["results"]
    assert closed["accepted"] == FIRST_REQUESTS
    assert not row["other_statuses"] and not row["failures"]
    assert row["accepted"] + row["rejected"] == requests
    assert row["accepted"] > 0 and row["rejected"] > 0
    assert row["memory_mb"]["end"] - row["memory_mb"]["start"] < MAX_GROWTH_MB


def _report(what: str, done: int, total: int) -> None:
    """Nobody watches."""
