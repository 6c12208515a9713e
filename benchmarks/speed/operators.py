"""Profilers: the time of every operator of a stage, as ONNX Runtime and OpenVINO tell it."""

import json
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ...bundle import Bundle
from ...engines.backends import open_engines
from ...engines.engine import Engine, Engines
from ...engines.ort.session import CPU_PROVIDER, open_session
from ...errors import InputError
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

    backend = "openvino"
    reason = "asked for"
    buckets = None
    decodes_at_once = 1

    def __init__(self, bundle: Bundle, threads: int | None) -> None:
        """Raises InputError where OpenVINO is not there; `threads` None is its own choice."""
        self._bundle = bundle
        self._threads = threads
        self._opened: dict[str, CountedGraph] = {}

    @property
    def engines(self) -> Engines:
        """The graphs that are profiled."""
        return self

    def stack(self, values: Sequence[Any]) -> Any:
        """See `Engines.stack`."""
        return np.concatenate(values)

    def to_device(self, array: np.ndarray) -> np.ndarray:
        """See `Engines.to_device`."""
        return array

    def __getitem__(self, stage: str) -> Engine:
        return self._graph(stage)

    def operators(self, run: Run, rounds: int) -> Times:
        """See `Profiler.operators`."""
        graph = self._graph(run.stage)
        graph.run(run.inputs)
        return medians_of_counters([graph.counted(run.inputs) for _ in range(rounds)])

    def _graph(self, stage: str) -> "CountedGraph":
        if stage not in self._opened:
            self._opened[stage] = CountedGraph(self._bundle, stage, self._threads)
        return self._opened[stage]


class CountedGraph:
    """A stage that OpenVINO compiled with performance counters."""

    def __init__(self, bundle: Bundle, stage: str, threads: int | None) -> None:
        """Raises InputError where OpenVINO is not there, or the file is missing or altered."""
        try:
            import openvino
        except ImportError as error:
            raise InputError(
                f"backend openvino: OpenVINO is missing or broken ({error}); pip install openvino"
            ) from error
        self.name = stage
        hint = "bf16" if bundle.manifest.precision == "bf16" else "f32"
        config: dict[str, Any] = {"INFERENCE_PRECISION_HINT": hint, "PERF_COUNT": True}
        if threads is not None:
            config["INFERENCE_NUM_THREADS"] = threads
        core = openvino.Core()
        model = core.read_model(bundle.verified(bundle.manifest.stages[stage].file))
        self._compiled = core.compile_model(model, "CPU", config)
        self._request = self._compiled.create_infer_request()
        self._half = openvino.Type.bf16
        self._tensor = openvino.Tensor
        self._runs = 0

    def run(self, inputs: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """Run the stage; see `Engine.run`. Arrays of bfloat16 are given and taken as uint16."""
        for port in self._compiled.inputs:
            array = np.ascontiguousarray(inputs[port.any_name])
            half = port.get_element_type() == self._half
            tensor = self._tensor(array, list(array.shape), self._half) if half else self._tensor(array)
            self._request.set_tensor(port.any_name, tensor)
        self._request.infer()
        self._runs += 1
        outputs = {}
        for port in self._compiled.outputs:
            values = self._request.get_tensor(port.any_name).data.copy()
            outputs[port.any_name] = (
                values.view(np.uint16) if port.get_element_type() == self._half else values
            )
        return outputs

    def counted(self, inputs: Mapping[str, Any]) -> dict[str, tuple[str, float]]:
        """By the name of each operator, its type and its milliseconds in one more run."""
        before = self._means()
        self.run(inputs)
        return of_last_run(before, self._means(), self._runs)

    def _means(self) -> Means:
        return {
            each.node_name: (each.node_type, 1000 * each.real_time.total_seconds())
            for each in self._request.profiling_info
        }


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
