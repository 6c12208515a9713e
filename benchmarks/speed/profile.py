"""Where the time of each stage goes on the CPU, by kind of operator."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...bundle import Bundle
from ...runtime import Rejection, Vocabulary
from ...runtime.pipeline import encode, finish, prepare
from ..precision.stages import RecordedEngines, Run
from ..results_file import CpuTimes, other_load_since, setting
from .operators import PROFILERS, Times
from .rounds import Report

# Operators by what they do: those of ONNX, and those that ONNX Runtime and OpenVINO make of them.
KINDS: Mapping[str, Sequence[str]] = {
    "matrix products": [
        "MatMul",
        "FusedMatMul",
        "Gemm",
        "FusedGemm",
        "MatMulInteger",
        "MatMulIntegerToFloat",
        "DynamicQuantizeMatMul",
        "FullyConnected",
    ],
    "convolutions": [
        "Conv",
        "FusedConv",
        "ConvTranspose",
        "Convolution",
        "GroupConvolution",
        "ConvolutionBackpropData",
        "GroupConvolutionBackpropData",
    ],
    "norms": [
        "LayerNormalization",
        "SkipLayerNormalization",
        "InstanceNormalization",
        "ReduceL2",
        "MVN",
        "RMS",
        "NormalizeL2",
        "GroupNormalization",
    ],
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
        "Reorder",
        "StridedSlice",
        "VariadicSplit",
        "Broadcast",
        "Convert",
        "DepthToSpace",
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
    backend: str = "onnxruntime",
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
        backend: of `PROFILERS`.

    Raises:
        InputError: the bundle cannot be opened, or cannot run on the CPU.
    """
    opened = Bundle.open(bundle)
    profiler = PROFILERS[backend](opened, threads)
    engines = RecordedEngines(profiler.engines)
    report("running the stages once", 0, 1)
    started = CpuTimes.now()
    # Once for each vocabulary, and not for each image.
    vocabulary.folded(engines)
    engines.runs.clear()
    (encoded,) = encode(engines, [prepare(engines, image, None)])
    result = finish(encoded, vocabulary, rejection)
    # `label` runs once for each band of rows.
    runs: dict[str, list[Run]] = defaultdict(list)
    for run in engines.runs:
        runs[run.stage].append(run)
    stages = []
    for done, (stage, of_stage) in enumerate(runs.items()):
        report(f"profiling {stage}", done, len(runs))
        stages.append({"stage": stage, **summary(profiler.operators(run, rounds) for run in of_stage)})
    return {
        **setting(),
        "other_load": other_load_since(started),
        "preset": opened.manifest.preset,
        "precision": opened.manifest.precision,
        "backend": backend,
        "categories": len(vocabulary),
        "kept": list(result.kept),
        "threads": threads,
        "rounds": rounds,
        "kinds": [*KINDS, OTHER],
        "results": stages,
    }


def summary(runs: Iterable[Times]) -> dict[str, Any]:
    """Milliseconds of a stage, added up over its runs: in all, by kind, and of the six slowest operators."""
    by_kind = dict.fromkeys((*KINDS, OTHER), 0.0)
    by_operator: dict[str, float] = defaultdict(float)
    for times in runs:
        for operator, milliseconds in times:
            by_kind[kind_of(operator)] += milliseconds
            by_operator[operator] += milliseconds
    slowest = sorted(by_operator.items(), key=lambda item: -item[1])[:6]
    return {"ms": sum(by_kind.values()), "kinds_ms": by_kind, "operators_ms": dict(slowest)}


def kind_of(operator: str) -> str:
    """The kind of an operator, of `KINDS` or `OTHER`."""
    return next((kind for kind, operators in KINDS.items() if operator in operators), OTHER)
