"""Kept indices filled up with -1 change nothing that is real."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from sed_trt.bundle import Bundle
from sed_trt.engines.backends import open_engines
from sed_trt.runtime.rejection import padded

# Matrix products of another size are summed in another order; in FP16 that moves a rounding now and then.
LIMITS = {"fp32": 1e-5, "fp16": 2**-9}


def test_up_to_the_smallest_bucket_that_holds_them() -> None:
    kept = np.array([3, 5, 9])
    assert padded(kept, (2, 4, 8)).tolist() == [3, 5, 9, -1]
    assert padded(kept, (3, 8)).tolist() == [3, 5, 9]
    assert padded(kept, (1, 2)).tolist() == [3, 5, 9]
    assert padded(kept, None) is kept


Decode = Callable[[int, np.ndarray], dict[str, np.ndarray]]


@pytest.fixture(params=["fp32", "fp16"])
def decode(request: pytest.FixtureRequest) -> tuple[Decode, float]:
    """Runs a decoder stage of sed-tiny on random inputs that are the same each time; the limit for errors."""
    path: Path = request.getfixturevalue({"fp32": "tiny_bundle", "fp16": "tiny_bundle_fp16"}[request.param])
    bundle = Bundle.open(path)
    engines = open_engines(bundle, "onnxruntime")
    dynamic = 12

    def run(number: int, kept: np.ndarray) -> dict[str, np.ndarray]:
        random = np.random.default_rng(0)
        inputs = {}
        for tensor in bundle.manifest.stages[f"decode{number}"].inputs:
            shape = [dynamic if isinstance(size, str) else size for size in tensor.shape]
            inputs[tensor.name] = random.normal(size=shape).astype(tensor.dtype)
        return engines[f"decode{number}"].run(inputs | {f"kept{number - 1}": kept})

    return run, LIMITS[request.param]


@pytest.mark.parametrize("number", [1, 2, 3])
@pytest.mark.parametrize("living", [1, 3, 9])
def test_padding_changes_nothing_real(decode: tuple[Decode, float], number: int, living: int) -> None:
    run, limit = decode
    kept = np.arange(living) + 2
    plain, filled = run(number, kept), run(number, padded(kept, (16,)))
    for name, expected in plain.items():
        found = filled[name]
        if name.startswith("votes"):
            assert found.shape == (8, 16)
            assert not found[:, living:].any()
            # Two categories as close as rounding may change places.
            assert np.abs(found[:, :living] - expected).sum() <= 2 + 0.001 * expected.sum()
            continue
        assert found.shape == (16, *expected.shape[1:])
        scale = max(1.0, float(np.abs(expected).max()))
        assert np.abs(found[:living].astype(np.float32) - expected).max() <= limit * scale
        if name.startswith("logits"):
            assert (found[living:] <= -60000).all()
