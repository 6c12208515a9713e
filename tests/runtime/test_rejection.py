"""Rejection policies on vote tables worked out by hand, and padding that changes nothing real."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from sed_trt.bundle import Bundle
from sed_trt.engines.backends import open_engines
from sed_trt.errors import InputError
from sed_trt.runtime import Budget, KeepAll, MinPixels, Rejection, TopK, parse_rejection
from sed_trt.runtime.rejection import padded

# Matrix products of another size are summed in another order; in FP16 that moves a rounding now and then.
LIMITS = {"fp32": 1e-5, "fp16": 2**-9}
Decode = Callable[[int, np.ndarray], dict[str, np.ndarray]]

# Five categories on ten pixels: 0 always first, 4 never among the first three.
VOTES = np.zeros((8, 5), dtype=np.int32)
VOTES[0] = [10, 0, 0, 0, 0]
VOTES[1] = [0, 6, 4, 0, 0]
VOTES[2] = [0, 3, 6, 1, 0]
VOTES[3] = [0, 1, 0, 8, 1]
VOTES[4] = [0, 0, 0, 1, 9]

POLICIES = [
    TopK(1),
    TopK(8),
    MinPixels(8, 1000),
    MinPixels(1, 1),
    Budget(1),
    Budget(3),
    Budget(99),
    KeepAll(),
]


@pytest.mark.parametrize(
    ("policy", "kept"),
    [
        (TopK(1), [0]),
        (TopK(2), [0, 1, 2]),
        (TopK(3), [0, 1, 2, 3]),
        (TopK(), [0, 1, 2, 3, 4]),
        (MinPixels(3, 1), [0, 1, 2, 3]),
        (MinPixels(3, 9), [0, 1, 2]),
        (MinPixels(3, 10), [0, 2]),
        (MinPixels(8, 10), [0, 1, 2, 3, 4]),
        (MinPixels(8, 11), [0]),
        (Budget(1), [0]),
        (Budget(2), [0, 1]),
        (Budget(3), [0, 1, 2]),
        (Budget(9), [0, 1, 2, 3, 4]),
        (KeepAll(), [0, 1, 2, 3, 4]),
    ],
)
def test_kept(policy: Rejection, kept: list[int]) -> None:
    assert policy.keep(VOTES).tolist() == kept


def test_budget_weighs_ranks() -> None:
    votes = np.zeros((8, 3), dtype=np.int32)
    votes[0, 2] = 3  # 24
    votes[7, 0] = 23  # 23
    votes[4, 1] = 5  # 20
    assert Budget(1).keep(votes).tolist() == [2]
    assert Budget(2).keep(votes).tolist() == [0, 2]


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("categories", [1, 2, 4096])
def test_shape_dtype_and_at_least_one(policy: Rejection, categories: int) -> None:
    empty = np.zeros((8, categories), dtype=np.int32)
    busy = np.random.default_rng(0).integers(0, 3, (8, categories), dtype=np.int32)
    for votes in (empty, busy):
        kept = policy.keep(votes)
        assert kept.dtype == np.int64
        assert 1 <= len(kept) <= categories
        assert (np.diff(kept) > 0).all()
    if isinstance(policy, Budget):
        assert len(policy.keep(busy)) == min(policy.categories, categories)


@pytest.mark.parametrize(
    ("text", "policy"),
    [
        ("topk:1", TopK(1)),
        ("topk:8", TopK(8)),
        ("min-pixels:8:20", MinPixels(8, 20)),
        ("budget:32", Budget(32)),
        (" none ", KeepAll()),
    ],
)
def test_parse(text: str, policy: Rejection) -> None:
    assert parse_rejection(text) == policy


@pytest.mark.parametrize(
    "text",
    [
        "",
        "topk",
        "topk:",
        "topk:x",
        "topk:-1",
        "topk:1.5",
        "topk:8:8",
        "topk:²",
        "topk:" + "1" * 5000,
        "min-pixels:8",
        "none:1",
        "all",
    ],
)
def test_unknown_policies_list_the_choices(text: str) -> None:
    with pytest.raises(InputError, match=r"topk:K, min-pixels:K:PIXELS, budget:CATEGORIES, none"):
        parse_rejection(text)


@pytest.mark.parametrize("text", ["topk:0", "topk:9", "min-pixels:9:20", "min-pixels:8:0", "budget:0"])
def test_numbers_out_of_range(text: str) -> None:
    with pytest.raises(InputError, match="expected"):
        parse_rejection(text)


@pytest.mark.parametrize("number", [2.5, True, None, "8", 0])
@pytest.mark.parametrize("policy", [TopK, Budget, MinPixels, lambda number: MinPixels(8, number)])
def test_what_is_no_whole_number(policy: Callable[[object], Rejection], number: object) -> None:
    with pytest.raises(InputError, match=f"is {number!r}, expected a whole number"):
        policy(number)


def test_numpy_integers_are_whole_numbers() -> None:
    assert TopK(np.int64(2)).keep(VOTES).tolist() == [0, 1, 2]  # type: ignore[arg-type]


def test_up_to_the_smallest_bucket_that_holds_them() -> None:
    kept = np.array([3, 5, 9])
    assert padded(kept, (2, 4, 8)).tolist() == [3, 5, 9, -1]
    assert padded(kept, (3, 8)).tolist() == [3, 5, 9]
    assert padded(kept, (1, 2)).tolist() == [3, 5, 9]
    assert padded(kept, None) is kept


@pytest.fixture(params=["fp32", "fp16"])
def decode(request: pytest.FixtureRequest) -> tuple[Decode, float]:
    """Runs a gather and its decoder stage of sed-tiny on the same random inputs; limit of errors."""
    path: Path = request.getfixturevalue({"fp32": "tiny_bundle", "fp16": "tiny_bundle_fp16"}[request.param])
    bundle = Bundle.open(path)
    engines = open_engines(bundle, "onnxruntime")
    dynamic = 12

    def run(number: int, kept: np.ndarray) -> dict[str, np.ndarray]:
        random = np.random.default_rng(0)
        values: dict[str, np.ndarray] = {f"kept{number - 1}": kept}
        outputs: dict[str, np.ndarray] = {}
        for stage in (f"gather{number}", f"decode{number}"):
            tensors = bundle.manifest.stages[stage].inputs
            for tensor in tensors:
                shape = [dynamic if isinstance(size, str) else size for size in tensor.shape]
                if tensor.name not in values:
                    values[tensor.name] = random.normal(size=shape).astype(tensor.dtype)
            outputs = engines[stage].run({tensor.name: values[tensor.name] for tensor in tensors})
            values |= outputs
        return outputs

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


@pytest.mark.parametrize("number", [1, 2, 3])
@pytest.mark.parametrize("fixture", ["tiny_bundle", "tiny_bundle_fp16"])
def test_gathers_copy_what_is_kept(fixture: str, number: int, request: pytest.FixtureRequest) -> None:
    bundle = Bundle.open(request.getfixturevalue(fixture))
    stage = bundle.manifest.stages[f"gather{number}"]
    *sources, indices = stage.inputs
    random = np.random.default_rng(0)
    values = {
        tensor.name: random.normal(size=(7, *map(int, tensor.shape[1:]))).astype(tensor.dtype)
        for tensor in sources
    }
    engine = open_engines(bundle, "onnxruntime")[f"gather{number}"]
    for kept in ([0], [1, 4, 6], [2, 3, -1, -1, -1], list(range(7)), [*range(7), -1]):
        outputs = engine.run({**values, indices.name: np.array(kept)})
        for tensor, output in zip(sources, stage.outputs, strict=True):
            # Of padding any category is taken: the decoder stage masks it.
            taken = values[tensor.name][np.maximum(kept, 0)]
            assert np.array_equal(outputs[output.name], taken)
            assert outputs[output.name].dtype == taken.dtype
