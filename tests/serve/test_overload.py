"""A server under more load than it can carry: every request is answered or refused, and memory stays flat."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from sed_trt.benchmarks.speed.load import Load, Server
from sed_trt.benchmarks.speed.serving import measure_serving
from sed_trt.tests.fakes.server import serving

# Growth of the server's memory that its allocator may take.
MAX_GROWTH_MB = 64.0


def overloaded(bundle: Path, folder: Path, counts: Sequence[int]) -> list[Mapping[str, Any]]:
    """Rows of so many requests each, one after the other, at four times what two clients reach."""
    with serving([str(bundle), "--queue", "4"], folder) as url:
        server = Server.at(url)
        (closed,) = measure_serving(server, [Load(clients=2)], 80, _report)["results"]
        assert closed["accepted"] == closed["requests"]
        load = Load(rate=4 * closed["throughput"])
        rows = [measure_serving(server, [load], count, _report)["results"][0] for count in counts]
    for row in rows:
        assert not row["other_statuses"] and not row["failures"]
        assert row["accepted"] + row["rejected"] == row["requests"]
        assert row["accepted"] > 0 and row["rejected"] > 0
    return rows


def _report(what: str, done: int, total: int) -> None:
    """Nobody watches."""


def test_overload_is_answered_or_refused(tiny_bundle: Path, tmp_path: Path) -> None:
    overloaded(tiny_bundle, tmp_path, [80])


@pytest.mark.slow
def test_overload_costs_no_memory(tiny_bundle: Path, tmp_path: Path) -> None:
    # The engines and the allocator take their memory for several images at a time in the first requests.
    _, row = overloaded(tiny_bundle, tmp_path, [3_000, 10_000])
    assert row["memory_mb"]["end"] - row["memory_mb"]["start"] < MAX_GROWTH_MB
