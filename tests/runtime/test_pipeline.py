"""The pipeline on stages in numpy: their order, labels at any size, and warming up at every size."""

import itertools
import weakref
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest

from sed_trt import host
from sed_trt.engines.profiles import Limits, category_buckets, choose_profile, stage_profiles
from sed_trt.runtime import Budget, KeepAll, Result, TopK, Vocabulary
from sed_trt.runtime.pipeline import encode, finish, label_map, prepare, source_coordinates, warm_up
from sed_trt.runtime.rejection import Rejection
from sed_trt.stages import DECODER, GATHERS, STAGES
from sed_trt.tests.fakes.engines import FakeEngine, FakeEngines, colour_vocabulary, quarters
from sed_trt.tests.fakes.manifest import earlier_manifest, fake_manifest
from sed_trt.tests.fakes.results import scores_of

BUCKETS = (2, 4, 8, 16)


def segment(engines: FakeEngines, image: np.ndarray, vocabulary: Vocabulary, rejection: Rejection) -> Result:
    (encoded,) = encode(engines, [prepare(engines, image, None)])
    return finish(encoded, vocabulary, rejection)


def quarter_names(result: Result) -> list[str]:
    height, width = result.labels.shape
    picks = [(0, 0), (0, width - 1), (height - 1, 0), (height - 1, width - 1)]
    return [result.names[result.labels[pick]] for pick in picks]


def test_labels_are_indices_of_the_vocabulary() -> None:
    result = segment(FakeEngines(), quarters(), colour_vocabulary(), KeepAll())
    assert quarter_names(result) == ["red", "green", "blue", "white"]
    assert result.labels.shape == scores_of(result).shape == (40, 60)
    assert (result.labels.dtype, scores_of(result).dtype) == (np.uint16, np.float32)
    assert result.shares() == {"red": 0.25, "green": 0.25, "blue": 0.25, "white": 0.25}


def test_every_stage_is_timed() -> None:
    result = segment(FakeEngines(), quarters(), colour_vocabulary(), KeepAll())
    assert list(result.timings) == [
        "load", "resize", "pixels", "image", "scout", "decode1", "decode2", "decode3", "label"
    ]  # fmt: skip
    assert min(result.timings.values()) >= 0


def test_rejected_categories_never_reach_the_decoder() -> None:
    engines = FakeEngines()
    red_only = np.zeros((8, 8, 3), dtype=np.uint8)
    red_only[..., 0] = 255
    result = segment(engines, red_only, colour_vocabulary("white", "green", "red", "blue"), TopK(1))
    assert result.kept == (1, 1, 1)
    assert result.kept_ids.tolist() == [2]
    assert (result.labels == 2).all()
    assert engines["decode1"].shapes[0]["kept0"] == engines["decode1"].shapes[0]["kept_text"][:1] == (1,)


class Scripted:
    """A policy that answers each call with the next of given index lists."""

    def __init__(self, *answers: list[int]) -> None:
        self.answers = list(answers)
        self.seen: list[int] = []

    def keep(self, votes: np.ndarray) -> np.ndarray:
        self.seen.append(votes.shape[1])
        return np.array(self.answers.pop(0), dtype=np.int64)


def test_kept_indices_compose_to_vocabulary_indices() -> None:
    policy = Scripted([0, 1, 3], [1, 2], [0])
    result = segment(FakeEngines(), quarters(), colour_vocabulary(), policy)
    assert policy.seen == [4, 3, 2]
    assert result.kept == (3, 2, 1)
    assert result.kept_ids.tolist() == [1]
    assert result.names[1] == "green"
    assert (result.labels == 1).all()


@pytest.mark.parametrize("on_device", [False, True])
def test_tensors_that_no_later_stage_takes_are_released(
    on_device: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    engines = FakeEngines(BUCKETS if on_device else None)
    seen: dict[str, weakref.ref[np.ndarray]] = {}
    alive: dict[str, set[str]] = {}
    for stage in (*DECODER, *GATHERS.values()):
        monkeypatch.setattr(engines[stage.name], "run", watched(engines[stage.name], seen, alive))
    segment(engines, quarters(), colour_vocabulary(), Budget(3))
    if not on_device:
        assert alive == {stage.name: set() for stage in DECODER[:2]} | {
            # All that are left are kept, so these are the arrays of the stage before.
            "decode2": {"x1", "cost1"},
            "decode3": {"x2", "cost2"},
        }
        return
    assert alive == {
        "scout": set(),
        "gather1": set(),
        "decode1": {"kept_text"},
        "gather2": {"x1", "cost1"},
        "decode2": {"kept_x1", "kept_cost1"},
        "gather3": {"x2", "cost2"},
        "decode3": {"kept_x2", "kept_cost2"},
    }


def watched(
    engine: FakeEngine, seen: dict[str, "weakref.ref[np.ndarray]"], alive: dict[str, set[str]]
) -> Callable[[Mapping[str, Any]], dict[str, np.ndarray]]:
    """The engine's `run`, which notes which outputs of earlier stages are in memory when it begins."""
    run = engine.run

    def watched_run(inputs: Mapping[str, Any]) -> dict[str, np.ndarray]:
        alive[engine.name] = {name for name, output in seen.items() if output() is not None}
        # Several outputs of a fake stage are one array.
        outputs = {name: array.copy() for name, array in run(inputs).items()}
        seen.update({name: weakref.ref(array) for name, array in outputs.items()})
        return outputs

    return watched_run


def test_budget_fixes_the_shapes() -> None:
    engines = FakeEngines()
    result = segment(engines, quarters(), colour_vocabulary(), Budget(3))
    assert result.kept == (3, 3, 3)
    assert engines["label"].shapes[0]["kept"] == (3,)


def test_a_batch_gives_each_image_its_own_features() -> None:
    engines = FakeEngines()
    images = [quarters(), quarters()[::-1].copy(), quarters(7, 5)]
    encoded = encode(engines, [prepare(engines, image, None) for image in images])
    assert engines["image"].shapes == [{"pixels": (3, 3, 64, 64)}]
    results = [finish(item, colour_vocabulary(), KeepAll()) for item in encoded]
    assert quarter_names(results[0]) == ["red", "green", "blue", "white"]
    assert quarter_names(results[1]) == ["blue", "white", "red", "green"]
    assert results[2].labels.shape == (7, 5)


def test_source_coordinates_are_pixel_centres() -> None:
    assert source_coordinates(2, 4).tolist() == [0, 0.25, 0.75, 1]
    assert source_coordinates(4, 2).tolist() == [0.5, 2.5]
    assert source_coordinates(5, 5).tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("limit", [1, 7, 40, 1000])
def test_bands_give_what_one_piece_gives(limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    logits = np.random.default_rng(0).normal(size=(3, 8, 8)).astype(np.float32)
    kept = np.array([4, 9, 300])
    whole, whole_scores = label_map(FakeEngines(), logits, kept, 13, 11)
    monkeypatch.setattr(host, "MAX_BAND_VALUES", limit)
    engines = FakeEngines()
    labels, scores = label_map(engines, logits, kept, 13, 11)
    assert np.array_equal(labels, whole)
    assert scores is not None and whole_scores is not None and np.array_equal(scores, whole_scores)
    assert set(np.unique(labels)) <= {4, 9, 300}
    areas = [shapes["rows"][0] * shapes["columns"][0] for shapes in engines["label"].shapes]
    assert sum(areas) == 13 * 11
    assert max(areas) <= max(1, limit // 3)


class FittingEngines(FakeEngines):
    """A stage that labels, which refuses what engines built with these limits would."""

    def __init__(self, label_stage: str, limits: Limits) -> None:
        super().__init__(label_stage=label_stage)
        manifest = earlier_manifest() if label_stage == "label" else fake_manifest()
        self.profiles = stage_profiles(manifest, limits)[label_stage]
        self.name = label_stage
        self.runs = 0

    def __getitem__(self, stage: str) -> Any:
        assert stage == self.label_stage
        return self

    def run(self, inputs: Mapping[str, Any]) -> dict[str, np.ndarray]:
        choose_profile(self.profiles, {name: array.shape for name, array in inputs.items()}, self.name)
        self.runs += 1
        shape = len(inputs["rows"]), len(inputs["columns"])
        scores = np.zeros(shape, np.float32)
        if self.name == "label":
            return {"labels": np.zeros(shape, np.int32), "scores": scores}
        return {"label_bytes": np.zeros((*shape, 2), np.uint8), "label_scores": scores}


@pytest.mark.parametrize("most", [20, 100, 1024, 3000, 20_000])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (480, 640), (1500, 2000), (3000, 10), (10, 9000)])
@pytest.mark.parametrize("label_stage", ["label", "label_gpu"])
def test_every_band_fits_the_engines(label_stage: str, most: int, height: int, width: int) -> None:
    engines = FittingEngines(label_stage, Limits(most))
    for categories in {*category_buckets(most), 1, min(33, most), min(129, most), most - 1}:
        logits = np.zeros((categories, 16, 16), np.float32)
        labels, _ = label_map(engines, logits, np.arange(categories), height, width)
        assert labels.shape == (height, width)
    assert engines.runs


def shapes(engines: FakeEngines, stage: str, *names: str) -> set[tuple[int, ...]]:
    return {tuple(seen[name][0] for name in names) for seen in engines[stage].shapes}


def test_every_bucket_of_the_vocabulary_is_visited() -> None:
    engines = FakeEngines(BUCKETS)
    vocabulary = colour_vocabulary("red", "green", "blue")
    warm_up(engines, fake_manifest(), vocabulary, 3)
    assert shapes(engines, "pixels", "image") == {(1,)}
    assert shapes(engines, "image", "pixels") == {(1,), (2,), (3,)}
    assert shapes(engines, "scout", "text") == {(3,)}
    assert shapes(engines, "decode1", "kept0") == {(2,), (4,)}
    assert shapes(engines, "decode2", "kept_x1", "kept1") == {(2, 2), (4, 4)}
    assert shapes(engines, "decode3", "kept_x2", "kept2") == {(2, 2), (4, 4)}
    assert shapes(engines, "label", "kept") == {(2,), (4,)}
    assert engines["text"].shapes == []


def test_images_then_meet_no_new_shape() -> None:
    engines = FakeEngines(BUCKETS)
    vocabulary = colour_vocabulary()
    warm_up(engines, fake_manifest(), vocabulary, 1)
    warmed = decoder_shapes(engines)
    (encoded,) = encode(engines, [prepare(engines, quarters(), None)])
    for first, second, third in itertools.product((1, 2, 3, 4), repeat=3):
        if first >= second >= third:
            finish(encoded, vocabulary, Scripted(*(list(range(size)) for size in (first, second, third))))
    assert decoder_shapes(engines) == warmed


def decoder_shapes(engines: FakeEngines) -> dict[str, set[tuple[tuple[str, tuple[int, ...]], ...]]]:
    """By stage of the decoder that takes kept categories, the shapes of its inputs that it has seen."""
    return {
        stage.name: {tuple(sorted(seen.items())) for seen in engines[stage.name].shapes}
        for stage in DECODER
        if stage.kept
    }


def test_each_decoder_stage_runs_once_in_each_bucket() -> None:
    engines = FakeEngines(category_buckets(Limits().max_categories))
    warm_up(engines, fake_manifest(), None, 1)
    assert [len(engines[stage.name].shapes) for stage in DECODER] == [8] * 4
    assert sum(len(seen) for seen in decoder_shapes(engines).values()) == 24
    assert engines.warm_ups == 1


def test_without_a_vocabulary_all_buckets_and_the_text_encoder() -> None:
    engines = FakeEngines(BUCKETS)
    warm_up(engines, fake_manifest(), None, 1)
    assert shapes(engines, "decode1", "kept0") == {(bucket,) for bucket in BUCKETS}
    assert shapes(engines, "decode3", "kept_x2") == {(bucket,) for bucket in BUCKETS}
    assert shapes(engines, "text", "tokens") == {(256,)}


def test_one_pass_where_sizes_do_not_matter() -> None:
    engines = FakeEngines()
    warm_up(engines, fake_manifest(), None, 1)
    runs = {stage: len(engine.shapes) for stage, engine in engines.engines.items()}
    assert runs == {stage.name: 0 if stage.device_only else 1 for stage in STAGES}
    assert shapes(engines, "text", "tokens") == {(1,)}


@pytest.mark.parametrize("buckets", [None, BUCKETS])
def test_what_is_kept_is_gathered_in_numpy_or_by_the_stages(buckets: tuple[int, ...] | None) -> None:
    engines = FakeEngines(buckets)
    policy = Scripted([0, 1, 3], [1, 2], [1])
    result = segment(engines, quarters(), colour_vocabulary(), policy)
    assert result.kept_ids.tolist() == [3]
    assert (result.labels == 3).all()
    assert [len(engines[gather.name].shapes) for gather in GATHERS.values()] == [buckets is not None] * 3


def test_nothing_is_copied_on_a_cpu_where_all_are_kept() -> None:
    engines = FakeEngines()
    taken: dict[str, Any] = {}
    run = engines["decode2"].run

    def note(inputs: Mapping[str, Any]) -> dict[str, np.ndarray]:
        taken.update(inputs)
        return run(inputs)

    given: list[np.ndarray] = []
    decode1 = engines["decode1"].run

    def keep_output(inputs: Mapping[str, Any]) -> dict[str, np.ndarray]:
        outputs = decode1(inputs)
        given.append(outputs["x1"])
        return outputs

    engines["decode1"].run, engines["decode2"].run = keep_output, note  # type: ignore[method-assign]
    segment(engines, quarters(), colour_vocabulary(), KeepAll())
    assert taken["kept_x1"] is given[0]


@pytest.mark.parametrize("label_stage", ["label", "label_gpu"])
def test_every_label_run_fits_the_engines(label_stage: str) -> None:
    limits = Limits(1024)
    engines = FakeEngines(category_buckets(limits.max_categories), label_stage=label_stage)
    warm_up(engines, fake_manifest(), None, 1)
    manifest = earlier_manifest() if label_stage == "label" else fake_manifest()
    profiles = stage_profiles(manifest, limits)[label_stage]
    chosen = [choose_profile(profiles, shapes) for shapes in engines[label_stage].shapes]
    assert chosen == [0, 0, 0, 1, 1, 2, 2, 2]


@pytest.mark.parametrize("buckets", [None, BUCKETS])
def test_progress_ends_at_its_total(buckets: tuple[int, ...] | None) -> None:
    seen: list[tuple[int, int]] = []
    vocabulary = Vocabulary(tuple("abcde"), np.ones((5, 1, 3), np.float32))
    warm_up(
        FakeEngines(buckets), fake_manifest(), vocabulary, 2, lambda done, total: seen.append((done, total))
    )
    total = seen[0][1]
    assert seen == [(done, total) for done in range(1, total + 1)]
