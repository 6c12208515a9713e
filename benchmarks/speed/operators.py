"""Profilers: the time of every operator of a stage, as ONNX Runtime and OpenVINO tell it."""

import json
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ...bundle import Bundle
from ...engines.backends import open_engines
from ...engines.engine import Engines
from ...engines.openvino.engines import OpenVinoEngine, OpenVinoEngines
from ...engines.ort.session import CPU_PROVIDER, open_session
from ..precision.stages import Run

# The type of an operator, and its milliseconds in one run of the stage.
Times = Iterable[tuple[str, float]]
# What OpenVINO's counters tell: by the name of an operator, its type and its mean milliseconds over all runs.
Means = Mapping[str, tuple[str, float]]


class Profiler(Protocol):
    """A library that tells what its operators take."""

    @property
    def engines(self) -> Engines:
        """Those that run an image, whose runs of stages are then profiled."""

    def operators(self, run: Run, rounds: int) -> Times:
        """The operators of a stage that repeats `run`; medians of the `rounds` after the first."""


class OnnxRuntimeProfiler:
    """ONNX Runtime's CPU provider with its profiler on."""

    def __init__(self, bundle: Bundle, threads: int | None) -> None:
        """Raises InputError where the bundle cannot run there; `threads` None is one per core."""
        self.engines = open_engines(bundle, "onnxruntime", threads)
        self._bundle = bundle
        self._threads = threads

    def operators(self, run: Run, rounds: int) -> Times:
        """See `Profiler.operators`."""
        file = self._bundle.verified(self._bundle.manifest.stages[run.stage].file)
        with tempfile.TemporaryDirectory(prefix="sed-trt-profile-") as folder:
            session = open_session(file, file, self._threads, [CPU_PROVIDER], profile=Path(folder) / "stage")
            inputs = {name: np.asarray(value) for name, value in run.inputs.items()}
            for _ in range(rounds + 1):
                session.run(None, inputs)
            trace = Path(session.end_profiling()).read_text(encoding="utf-8")
        return list(medians_of_trace(json.loads(trace)))


def medians_of_trace(events: Iterable[Mapping[str, Any]]) -> Iterator[tuple[str, float]]:
    """The type of each node in ONNX Runtime's trace of several runs, and its milliseconds.

    Of each node the first run is left out and the median of the others counts.
    """
    runs: dict[str, list[float]] = defaultdict(list)
    operators: dict[str, str] = {}
    for event in events:
        # The trace holds other events of the same operator too: its name tells them apart.
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            runs[event["name"]].append(event["dur"] / 1000)
            operators[event["name"]] = event["args"]["op_name"]
    for name, times in runs.items():
        yield operators[name], float(np.median(times[1:] or times))


class OpenVinoProfiler:
    """OpenVINO's CPU plugin with its performance counters on."""

    def __init__(self, bundle: Bundle, threads: int | None) -> None:
        """Raises InputError where the bundle cannot run there; `threads` None is OpenVINO's own choice."""
        self.engines = OpenVinoEngines(bundle, threads, "asked for")
        self._bundle = bundle
        self._threads = threads

    def operators(self, run: Run, rounds: int) -> Times:
        """See `Profiler.operators`."""
        chosen = self.engines.arithmetic
        engine = OpenVinoEngine(self._bundle, run.stage, chosen, self._threads, counters=True)
        engine.run(run.inputs)
        means = [engine.counters()]
        for _ in range(rounds):
            engine.run(run.inputs)
            means.append(engine.counters())
        return medians_of_counters(
            [of_last_run(before, after, 2 + number) for number, (before, after) in enumerate(pairwise(means))]
        )


def of_last_run(before: Means, after: Means, runs: int) -> dict[str, tuple[str, float]]:
    """Milliseconds of the last of `runs` runs, from the means over all but that one and over all."""
    return {
        name: (kind, max(0.0, runs * mean - (runs - 1) * before.get(name, (kind, 0.0))[1]))
        for name, (kind, mean) in after.items()
    }


def medians_of_counters(runs: Sequence[Mapping[str, tuple[str, float]]]) -> Times:
    """The type of each operator, and the median of its milliseconds over several runs."""
    return [
        (kind, float(np.median([run[name][1] for run in runs if name in run])))
        for name, (kind, _) in runs[-1].items()
    ]


PROFILERS: Mapping[str, type[OnnxRuntimeProfiler] | type[OpenVinoProfiler]] = {
    "onnxruntime": OnnxRuntimeProfiler,
    "openvino": OpenVinoProfiler,
}
