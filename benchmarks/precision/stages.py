"""How far each stage of a bundle is from the same stage of another one, on the same inputs."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ...bundle import Bundle
from ...engines.engine import Engine, Engines, Value
from ...runtime import Rejection, Vocabulary
from ...runtime.pipeline import encode, finish, prepare


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
        """Run the stage and record it; see `Engine.run`."""
        outputs = self._engine.run(inputs)
        self._runs.append(Run(self.name, dict(inputs), outputs))
        return outputs


class RecordedEngines:
    """CPU engines whose runs are recorded in `runs`."""

    buckets = None
    decodes_at_once = 1
    images_at_once = 1

    def __init__(self, engines: Engines) -> None:
        self._engines = engines
        self.backend, self.reason = engines.backend, engines.reason
        self.stack, self.to_device = engines.stack, engines.to_device
        self.warmed_up = engines.warmed_up
        self.folds_vocabularies = engines.folds_vocabularies
        self.runs: list[Run] = []

    def __getitem__(self, stage: str) -> Engine:
        return RecordedEngine(self._engines[stage], self.runs)


@dataclass(frozen=True)
class StageError:
    """One output of one stage, over all its runs.

    Attributes:
        stage: name of the stage.
        output: name of the output.
        max_error: largest absolute difference.
        mean_error: mean absolute difference.
        peak: largest absolute value of the reference.
    """

    stage: str
    output: str
    max_error: float = 0.0
    mean_error: float = 0.0
    peak: float = 0.0


class StageErrors:
    """Collects the errors of a bundle's stages against those of a reference, image by image, on the CPU."""

    def __init__(self, bundle: Bundle, engines: Engines, reference: Engines) -> None:
        self._stages = bundle.manifest.stages
        self._engines = engines
        self._reference = reference
        # With the number of values compared so far.
        self._errors: dict[tuple[str, str], tuple[StageError, int]] = {}

    def add(self, image: np.ndarray, vocabulary: Vocabulary, rejection: Rejection) -> None:
        """Segment an image, uint8 (H, W, 3), with the reference, and run every stage on the same inputs."""
        reference = RecordedEngines(self._reference)
        (encoded,) = encode(reference, [prepare(reference, image, None)])
        finish(encoded, vocabulary, rejection)
        for run in reference.runs:
            inputs = {
                tensor.name: np.asarray(run.inputs[tensor.name]).astype(tensor.dtype)
                for tensor in self._stages[run.stage].inputs
            }
            outputs = self._engines[run.stage].run(inputs)
            for name, expected in run.outputs.items():
                self._compare(run.stage, name, np.asarray(outputs[name]), np.asarray(expected))

    def worst_first(self) -> list[StageError]:
        """The errors by their size relative to the larger of 1 and the peak, largest first."""
        errors = [error for error, _ in self._errors.values()]
        return sorted(errors, key=lambda error: -error.max_error / max(1.0, error.peak))

    def _compare(self, stage: str, output: str, values: np.ndarray, expected: np.ndarray) -> None:
        difference = np.abs(values.astype(np.float64) - expected)
        before, count = self._errors.get((stage, output), (StageError(stage, output), 0))
        total = count + difference.size
        error = replace(
            before,
            max_error=max(before.max_error, float(difference.max())),
            mean_error=(before.mean_error * count + float(difference.sum())) / total,
            peak=max(before.peak, float(np.abs(expected).max())),
        )
        self._errors[stage, output] = error, total
