"""Where the time of each stage goes on ONNX Runtime's CPU provider, by kind of operator."""

import json
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...bundle import Bundle
from ...engines.backends import open_engines
from ...engines.ort.session import CPU_PROVIDER, open_session
from ...runtime import Rejection, Vocabulary
from ...runtime.pipeline import encode, finish, prepare
from ..precision.stages import RecordedEngines, Run
from ..results_file import CpuTimes, other_load_since, setting
from .rounds import Report

# Operators by what they do, those included that ONNX Runtime fuses or moves to another layout.
KINDS: Mapping[str, Sequence[str]] = {
    "matrix products": [
        "MatMul",
        "FusedMatMul",
        "Gemm",
        "FusedGemm",
        "MatMulInteger",
        "MatMulIntegerToFloat",
        "DynamicQuantizeMatMul",
    ],
    "convolutions": ["Conv", "FusedConv", "ConvTranspose"],
    "norms": ["LayerNormalization", "SkipLayerNormalization", "InstanceNormalization", "ReduceL2"],
    "layout": [
        "Transpose",
        "Reshape",
        "Slice",
        "Split",
        "Concat",
        "Gather",
        "GatherND",
        "Pad",
        "Expand",
        "Unsqueeze",
        "Squeeze",
        "ReorderInput",
        "ReorderOutput",
        "Cast",
    ],
}
# Every other operator: activations, sums, reductions, comparisons. Each reads and writes whole maps.
OTHER = "element-wise"


def profile(
    bundle: Path,
    vocabulary: Vocabulary,
    image: np.ndarray,
    rejection: Rejection,
    rounds: int,
    report: Report,
    threads: int | None = None,
) -> dict[str, Any]:
    """The content of a results file: milliseconds of each stage by kind of operator.

    Args:
        bundle: a bundle folder.
        vocabulary: T categories.
        image: uint8 (H, W, 3), not resized before the network.
        rejection: what is kept.
        rounds: runs of each stage, after one that is not counted; their median counts.
        report: see `Report`.
        threads: CPU threads; None is one per core.

    Raises:
        InputError: the bundle cannot be opened, or cannot run on the CPU.
    """
    opened = Bundle.open(bundle)
    engines = RecordedEngines(open_engines(opened, "onnxruntime", threads))
    report("running the stages once", 0, 1)
    started = CpuTimes.now()
    (encoded,) = encode(engines, [prepare(engines, image, None)])
    result = finish(encoded, vocabulary, rejection)
    # `label` runs once for each band of rows.
    runs: dict[str, list[Run]] = defaultdict(list)
    for run in engines.runs:
        runs[run.stage].append(run)
    stages = []
    for done, (stage, of_stage) in enumerate(runs.items()):
        report(f"profiling {stage}", done, len(runs))
        stages.append({"stage": stage, **summary(_traces(opened, of_stage, rounds, threads))})
    return {
        **setting(),
        "other_load": other_load_since(started),
        "preset": opened.manifest.preset,
        "precision": opened.manifest.precision,
        "backend": "onnxruntime",
        "categories": len(vocabulary),
        "kept": list(result.kept),
        "threads": threads,
        "rounds": rounds,
        "kinds": [*KINDS, OTHER],
        "results": stages,
    }


def _traces(
    bundle: Bundle, runs: Sequence[Run], rounds: int, threads: int | None
) -> Iterator[list[dict[str, Any]]]:
    """ONNX Runtime's trace of a stage for each of its runs, with that run repeated."""
    stage = runs[0].stage
    file = bundle.verified(bundle.manifest.stages[stage].file)
    for run in runs:
        with tempfile.TemporaryDirectory(prefix="sed-trt-profile-") as folder:
            session = open_session(file, file, threads, [CPU_PROVIDER], profile=Path(folder) / "stage")
            inputs = {name: np.asarray(value) for name, value in run.inputs.items()}
            for _ in range(rounds + 1):
                session.run(None, inputs)
            yield json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))


def summary(traces: Iterable[Iterable[Mapping[str, Any]]]) -> dict[str, Any]:
    """Milliseconds of a stage from ONNX Runtime's traces: in all, by kind, and of the six slowest operators.

    A trace holds several runs of the same work. Of each operator the first run is left out and the median of
    the others counts; the traces are added up.
    """
    by_kind = dict.fromkeys((*KINDS, OTHER), 0.0)
    by_operator: dict[str, float] = defaultdict(float)
    for events in traces:
        for operator, milliseconds in _medians(events):
            by_kind[kind_of(operator)] += milliseconds
            by_operator[operator] += milliseconds
    slowest = sorted(by_operator.items(), key=lambda item: -item[1])[:6]
    return {"ms": sum(by_kind.values()), "kinds_ms": by_kind, "operators_ms": dict(slowest)}


def _medians(events: Iterable[Mapping[str, Any]]) -> Iterator[tuple[str, float]]:
    """The type of each node of the graph, and its milliseconds."""
    runs: dict[str, list[float]] = defaultdict(list)
    operators: dict[str, str] = {}
    for event in events:
        # The trace holds other events of the same operator too: its name tells them apart.
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            runs[event["name"]].append(event["dur"] / 1000)
            operators[event["name"]] = event["args"]["op_name"]
    for name, times in runs.items():
        yield operators[name], float(np.median(times[1:] or times))


def kind_of(operator: str) -> str:
    """The kind of an operator, of `KINDS` or `OTHER`."""
    return next((kind for kind, operators in KINDS.items() if operator in operators), OTHER)
