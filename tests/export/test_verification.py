"""The comparison of a stage with PyTorch finds wrong shapes, values and labels."""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from sed_trt.bundle import Bundle
from sed_trt.engines.ort.cpu import OnnxRuntimeEngine
from sed_trt.errors import InputError
from sed_trt.export import verification
from sed_trt.export.stages import graph_specs
from sed_trt.export.verification import Check, derive_inputs, verification_inputs, verify_stage
from sed_trt.model import SED

Outputs = dict[str, np.ndarray]


@pytest.fixture
def checks(
    tiny_model: SED, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str, Callable[[Outputs], Outputs]], list[Check]]:
    """Verify one stage of sed-tiny whose engine's outputs `change` spoils."""
    specs = graph_specs(tiny_model)
    bundle = Bundle.open(tiny_bundle)

    def verified(stage: str, change: Callable[[Outputs], Outputs]) -> list[Check]:
        tensors = verification_inputs(tiny_model)
        for spec in specs:
            derive_inputs(spec, tensors, tiny_model)
            if spec.name == stage:
                monkeypatch.setattr(verification, "OnnxRuntimeEngine", spoiling(change))
                return verify_stage(spec, bundle, tensors)
            verify_stage(spec, bundle, tensors)
        raise AssertionError(stage)

    return verified


def spoiling(change: Callable[[Outputs], Outputs]) -> type[OnnxRuntimeEngine]:
    """The engine with `change` after every run."""

    class Spoiled(OnnxRuntimeEngine):
        def run(self, inputs: Mapping[str, np.ndarray]) -> Outputs:
            return change(super().run(inputs))

    return Spoiled


Checks = Callable[[str, Callable[[Outputs], Outputs]], list[Check]]


def test_shape_that_would_broadcast(checks: Checks) -> None:
    with pytest.raises(InputError, match=r"stage text: its graph gives embedding as float32 \(1, 128\)"):
        checks("text", lambda outputs: {name: array[:1] for name, array in outputs.items()})


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan_and_infinity_fail_and_are_json(checks: Checks, value: float) -> None:
    def spoil(outputs: Outputs) -> Outputs:
        outputs["embedding"][0, 0] = value
        return outputs

    (check,) = checks("text", spoil)
    assert not check.passed
    json.dumps(asdict(check), allow_nan=False)


def test_labels_that_are_positions_in_kept(checks: Checks) -> None:
    def spoil(outputs: Outputs) -> Outputs:
        return outputs | {"labels": (outputs["labels"] - 1) // 3}

    labels, scores = checks("label", spoil)
    assert scores.passed
    assert not labels.passed
