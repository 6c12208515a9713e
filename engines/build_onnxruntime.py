"""One graph optimised ahead by ONNX Runtime, for any CPU."""

from collections.abc import Callable
from pathlib import Path

from ..errors import InputError
from .build_worker import in_worker
from .onnxruntime_engine import CPU_PROVIDER, library


def build_graph(graph: Path, output: Path, report: Callable[[str, float], None]) -> None:
    """Write the optimised form of an ONNX graph to `output`.

    `report` is called with what is being done and the fraction that is done.

    Raises:
        InputError: ONNX Runtime cannot load the graph or write the file.
    """
    in_worker(lambda: _build(graph, output), lambda: report("optimising", 0.0), lambda: None)


def _build(graph: Path, output: Path) -> None:
    onnxruntime = library()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    # The next level ties the graph to the processor it was made on.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(output)
    try:
        onnxruntime.InferenceSession(graph, options, providers=[CPU_PROVIDER])
    except Exception as error:
        # ONNX Runtime's exceptions share no base class of their own.
        reason = str(error).strip().splitlines()[0]
        raise InputError(
            f"{graph}: ONNX Runtime {onnxruntime.__version__} cannot optimise it ({reason}); "
            "free space, update onnxruntime or run the bundle as it is"
        ) from error
