"""A server under more load than it can carry: every request is answered or refused, and memory stays flat."""

import json
from pathlib import Path

import pytest

from sed_trt.cli.main import main
from sed_trt.tests.fakes.server import serving

# Growth of the server's memory that its allocator may take once all sizes were seen.
MAX_GROWTH_MB = 64.0


@pytest.mark.parametrize(
    "requests", [pytest.param(80, id="short"), pytest.param(10_000, id="long", marks=pytest.mark.slow)]
)
def test_overload_is_refused_and_costs_no_memory(tiny_bundle: Path, tmp_path: Path, requests: int) -> None:
    output = tmp_path / "serving.json"
    with serving([str(tiny_bundle), "--queue", "4"], tmp_path) as url:
        options = ["--clients", "2", "--rate", "4x", "--requests", str(requests), "-o", str(output)]
        assert main(["bench", "serve", url, *options]) == 0
    closed, overload = json.loads(output.read_text())["results"]
    assert closed["accepted"] == requests
    assert not overload["other_statuses"] and not overload["failures"]
    assert overload["accepted"] + overload["rejected"] == requests
    assert overload["accepted"] > 0 and overload["rejected"] > 0
    if requests > 1000:
        memory = overload["memory_mb"]
        assert memory["end"] - memory["start"] < MAX_GROWTH_MB
