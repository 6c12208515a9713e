"""Rejection on the device chooses what the host does, whatever sizes were guessed, and waits less."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sed_trt.bundle import Bundle
from sed_trt.engines.ort.cpu import OnnxRuntimeEngine
from sed_trt.engines.ort.cuda import OnnxRuntimeCudaEngines, OnnxRuntimeDevice
from sed_trt.runtime import Budget, KeepAll, MinPixels, Rejection, Result, Segmenter, TopK, Vocabulary
from sed_trt.runtime.device_rejection import DeviceRejection, GuessedImage
from sed_trt.runtime.pipeline import EncodedImage, encode, finish, prepare
from sed_trt.runtime.rejection import device_rule
from sed_trt.stages import DECODER, VOTE_RANKS
from sed_trt.tests.fakes.bundle import write_fake_bundle
from sed_trt.tests.fakes.engines import STAGES, FakeEngines, quarters
from sed_trt.tests.fakes.results import scores_of
from sed_trt.train.scenes import make_scene

BUCKETS = (2, 4, 8, 16, 64)
POLICIES: list[Rejection] = [
    TopK(1),
    TopK(8),
    MinPixels(8, 20),
    MinPixels(2, 10**12),
    Budget(1),
    Budget(5),
    Budget(2**40),
]
Select = Callable[[Mapping[str, Any]], Mapping[str, Any]]


@pytest.fixture(params=["the graph in ONNX Runtime", "the stand-in"])
def select(request: pytest.FixtureRequest) -> Select:
    """Runs the stage `select`."""
    if request.param == "the stand-in":
        return STAGES["select"]
    return OnnxRuntimeEngine(Bundle.open(request.getfixturevalue("tiny_bundle")), "select").run


def vote_table(random: np.random.Generator) -> np.ndarray:
    """Votes int32 (8, T) of few pixels: there are ties, and categories or whole tables without votes."""
    categories, largest = int(random.integers(1, 40)), int(random.choice([1, 2, 30]))
    votes = random.integers(0, largest + 1, (VOTE_RANKS, categories), dtype=np.int32)
    return votes * (random.random(categories) < random.random()).astype(np.int32)


def test_select_keeps_what_the_policies_keep(select: Select) -> None:
    random = np.random.default_rng(0)
    overflows = fallbacks = 0
    for _ in range(1000):
        votes, policy = vote_table(random), POLICIES[random.integers(len(POLICIES))]
        kept, slots = policy.keep(votes), int(random.choice([1, 2, 4, 8, 64]))
        overflows += len(kept) > slots
        fallbacks += not isinstance(policy, Budget) and not votes.any()
        ids = np.sort(random.choice(1000, votes.shape[1], replace=False))
        padding = int(random.integers(0, 5))
        outputs = select(
            {
                # Padding has no votes.
                "votes": np.pad(votes, ((0, 0), (0, padding))),
                "ids": np.pad(ids, (0, padding), constant_values=-1),
                "rule": device_rule(policy),
                "slots": np.arange(slots),
            }
        )
        rest = [-1] * (slots - len(kept))
        assert outputs["count"].tolist() == [len(kept)]
        assert outputs["selected"].tolist() == [*kept[:slots], *rest]
        assert outputs["selected_ids"].tolist() == [*ids[kept[:slots]], *rest]
    assert overflows > 100 and fallbacks > 10


def test_policies_without_numbers() -> None:
    class Odd(TopK):
        def keep(self, votes: np.ndarray) -> np.ndarray:
            return super().keep(votes)[::2]

    assert device_rule(KeepAll()) is None and device_rule(Odd()) is None


def encoded(engines: Any, image: np.ndarray) -> EncodedImage:
    (item,) = encode(engines, [prepare(engines, image, None)])
    return item


def spots(colours: int, seed: int) -> np.ndarray:
    """An image of so many random colours, uint8 (40, 60, 3)."""
    random = np.random.default_rng(seed)
    palette = random.integers(0, 256, (colours, 3), dtype=np.uint8)
    return palette[random.integers(0, colours, (40, 60))]


def vocabulary_of(count: int) -> Vocabulary:
    text = np.random.default_rng(count).random((count, 1, 3)).astype(np.float32)
    return Vocabulary(tuple(f"colour {number}" for number in range(count)), text)


def assert_same(result: Result, expected: Result) -> None:
    assert result.kept == expected.kept
    assert np.array_equal(result.kept_ids, expected.kept_ids)
    assert (result.labels.dtype, result.names) == (expected.labels.dtype, expected.names)
    assert np.array_equal(result.labels, expected.labels)
    assert np.array_equal(scores_of(result), scores_of(expected))


@pytest.mark.parametrize("policy", [TopK(1), TopK(3), MinPixels(2, 30), Budget(5), KeepAll()])
def test_results_are_those_of_the_host(policy: Rejection) -> None:
    engines = FakeEngines(BUCKETS)
    device = DeviceRejection(engines)
    for seed, colours in enumerate([1, 900, 3, 1, 40, 2, 2000, 1]):
        for count in (60, 7):
            item = encoded(engines, spots(colours, seed))
            vocabulary = vocabulary_of(count)
            assert_same(device.finish(item, vocabulary, policy), finish(item, vocabulary, policy))


@pytest.mark.parametrize("point", [0, 1, 2])
def test_an_overflow_repeats_from_its_point(point: int) -> None:
    engines = FakeEngines(BUCKETS)
    device = DeviceRejection(engines)
    item, vocabulary, policy = encoded(engines, spots(900, 0)), vocabulary_of(60), TopK(2)
    expected = device.finish(item, vocabulary, policy)
    right = device._last_sizes[policy, 60]
    assert right[point] > BUCKETS[0]
    device._last_sizes[policy, 60] = (*right[:point], BUCKETS[0], *right[point + 1 :])
    before = {stage.name: len(engines[stage.name].shapes) for stage in DECODER}
    image = device.decode(item, vocabulary, policy)
    assert isinstance(image, GuessedImage)
    assert_same(device.label(image, vocabulary.names), expected)
    runs = [len(engines[stage.name].shapes) - before[stage.name] for stage in DECODER]
    assert runs == [1] * (point + 1) + [2] * (3 - point)
    assert device._last_sizes[policy, 60] == right
    # The next image needs no second run.
    device.finish(item, vocabulary, policy)
    assert len(engines["decode3"].shapes) == before["decode3"] + 3


def test_overflows_at_every_point() -> None:
    engines = FakeEngines(BUCKETS)
    device = DeviceRejection(engines)
    item, vocabulary, policy = encoded(engines, spots(900, 0)), vocabulary_of(60), TopK(2)
    device._last_sizes[policy, 60] = (2, 2, 2)
    assert_same(device.finish(item, vocabulary, policy), finish(item, vocabulary, policy))


def test_what_needs_no_guess_needs_no_first_image() -> None:
    engines = FakeEngines(BUCKETS)
    device = DeviceRejection(engines)
    item, vocabulary = encoded(engines, quarters()), vocabulary_of(60)
    for policy, size in ((Budget(5), 8), (Budget(99), 64), (KeepAll(), 64)):
        image = device.decode(item, vocabulary, policy)
        assert isinstance(image, GuessedImage) and image.sizes == (size,) * 3
    assert len(engines["select"].shapes) == 6


class EveryOther:
    """A policy of a user."""

    def keep(self, votes: np.ndarray) -> np.ndarray:
        return np.arange(0, votes.shape[1], 2)


@pytest.mark.parametrize(("policy", "count"), [(EveryOther(), 60), (Budget(5), 65)])
def test_the_host_rejects_where_the_device_cannot(policy: Rejection, count: int) -> None:
    engines = FakeEngines(BUCKETS)
    item, vocabulary = encoded(engines, spots(900, 0)), vocabulary_of(count)
    result = DeviceRejection(engines).finish(item, vocabulary, policy)
    assert_same(result, finish(item, vocabulary, policy))
    assert engines["select"].shapes == []


def test_segmenter_and_stream(tmp_path: Path) -> None:
    bundle = write_fake_bundle(tmp_path / "bundle")
    engines = FakeEngines(BUCKETS, decodes_at_once=2)
    plain = Segmenter(bundle, engines=FakeEngines(BUCKETS))
    device = Segmenter(bundle, engines=engines, device_rejection=True)
    vocabulary = vocabulary_of(60)
    images = [spots(colours, seed) for seed, colours in enumerate([1, 900, 3, 1, 40, 2])]
    device.warmup(vocabulary)
    assert len(engines["select"].shapes) == 1
    items = list(device.stream(images, vocabulary, TopK(2), short_side=None, batch=2))
    for image, item in zip(images, items, strict=True):
        expected = plain(image, vocabulary, TopK(2), short_side=None)
        assert item.result is not None
        assert_same(item.result, expected)
        assert_same(device(image, vocabulary, TopK(2), short_side=None), expected)
    assert len(engines["select"].shapes) > 3 * len(images)
    # On a CPU nothing is guessed.
    on_cpu = FakeEngines()
    Segmenter(bundle, engines=on_cpu, device_rejection=True)(images[1], vocabulary)
    assert on_cpu["select"].shapes == []


@pytest.mark.parametrize("policy", [TopK(2), MinPixels(8, 4), Budget(3), KeepAll()])
def test_real_stages_keep_the_same(policy: Rejection, tiny_bundle: Path) -> None:
    engines = OnnxRuntimeCudaEngines(Bundle.open(tiny_bundle), None, "asked for", OnnxRuntimeDevice("cpu"))
    segmenter = Segmenter(tiny_bundle, engines=engines)
    vocabulary = segmenter.vocabulary(
        ["sky", "grass", "sand", "water", "road", "red car", "house", "tree", "boat"]
    )
    device = DeviceRejection(engines)
    for seed in range(3):
        item = encoded(engines, make_scene(seed, 128, split="test").image)
        assert_same(device.finish(item, vocabulary, policy), finish(item, vocabulary, policy))
