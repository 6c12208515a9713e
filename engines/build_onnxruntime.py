"""One graph optimised ahead by ONNX Runtime, for any CPU."""

from collections.abc import Callable
from pathlib import Path

from .build_worker import in_worker
from .onnxruntime_engine import CPU_PROVIDER, open_session


def build_graph(graph: Path, output: Path, report: Callable[[str, float], None]) -> None:
    """Write the optimised form of an ONNX graph to `output`.

    `report` is called with what is being done and the fraction that is done.

    Raises:
        InputError: ONNX Runtime cannot load the graph or write the file.
    """
    in_worker(
        lambda: open_session(graph, graph, None, [CPU_PROVIDER], output),
        lambda: report("optimising", 0.0),
        lambda: None,
    )
