"""How far each stage of a bundle is from the same stage of another one, on the same inputs."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...bundle import Bundle
from ...engines.engine import Engine, Engines, Value
from ...runtime import Rejection, Vocabulary
from ...runtime.pipeline import encode, finish, prepare


@dataclass(frozen=True)
class StageError:
    """One output of one stage, over all runs.

    Attributes:
        stage: name of the stage.
        output: name of the output.
        max_error: largest absolute difference.
        mean_error: mean absolute difference.
        peak: largest absolute value of the reference.
    """

    stage: str
    output: str
    max_error: float
    mean_error: float
    peak: float


@dataclass(frozen=True, eq=False)
class Run:
    """One run of a stage: its inputs and outputs by name."""

    stage: str
    inputs: Mapping[str, Value]
    outputs: Mapping[str, Value]


class RecordedEngine:
    """An engine that adds each of its runs to a list."""

    def __init__(self, engine: Engine, runs: list[Run]) -> None:
        self._engine = engine
        self._runs = runs

    @property
    def name(self) -> str:
        """Name of the stage."""
        return self._engine.name

    def run(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Run the stage and remember it; see `Engine.run`."""
        outputs = self._engine.run(inputs)
        self._runs.append(Run(self.name, dict(inputs), outputs))
        return outputs


class RecordedEngines:
    """CPU engines whose runs are remembered in `runs`."""

    buckets = None
    decodes_at_once = 1

    def __init__(self, engines: Engines) -> None:
        self._engines = engines
        self.backend, self.reason = engines.backend, engines.reason
        self.stack, self.to_device = engines.stack, engines.to_device
        self.runs: list[Run] = []

    def __getitem__(self, stage: str) -> Engine:
        return RecordedEngine(self._engines[stage], self.runs)


class StageErrors:
    """Collects the errors of a bundle's stages against a reference, picture by picture, on the CPU."""

    def __init__(self, bundle: Bundle, engines: Engines, reference: Engines) -> None:
        self._stages = bundle.manifest.stages
        self._engines = engines
        self._reference = reference
        self._largest: dict[tuple[str, str], tuple[float, float]] = {}
        self._sums: dict[tuple[str, str], tuple[float, int]] = {}

    def add(self, image: np.ndarray, vocabulary: Vocabulary, rejection: Rejection) -> None:
        """Segment a picture, uint8 (H, W, 3), with the reference and run every stage on what it was given."""
        reference = RecordedEngines(self._reference)
        (encoded,) = encode(reference, [prepare(reference, image, None)])
        finish(encoded, vocabulary, rejection)
        for run in reference.runs:
            given = {
                tensor.name: np.asarray(run.inputs[tensor.name]).astype(tensor.dtype)
                for tensor in self._stages[run.stage].inputs
            }
            found = self._engines[run.stage].run(given)
            for name, expected in run.outputs.items():
                self._compare((run.stage, name), np.asarray(found[name]), np.asarray(expected))

    def errors(self) -> list[StageError]:
        """What was found, in the order the stages ran."""
        return [
            StageError(*key, largest, self._sums[key][0] / self._sums[key][1], peak)
            for key, (largest, peak) in self._largest.items()
        ]

    def _compare(self, key: tuple[str, str], found: np.ndarray, expected: np.ndarray) -> None:
        difference = np.abs(found.astype(np.float64) - expected)
        largest, peak = self._largest.get(key, (0.0, 0.0))
        self._largest[key] = max(largest, float(difference.max())), max(peak, float(np.abs(expected).max()))
        total, count = self._sums.get(key, (0.0, 0))
        self._sums[key] = total + float(difference.sum()), count + difference.size


def worst_first(errors: Iterable[StageError]) -> list[StageError]:
    """Errors by their size relative to the larger of 1 and the peak, largest first."""
    return sorted(errors, key=lambda error: -error.max_error / max(1.0, error.peak))
