"""Warming up runs every stage at every size that pictures can need."""

import numpy as np
import pytest

from sed_trt.engines.profiles import Limits, category_buckets, choose_profile, stage_profiles
from sed_trt.runtime import Budget
from sed_trt.runtime.pipeline import encode, finish, prepare, warm_up
from sed_trt.tests.fakes.engines import FakeEngines, colour_vocabulary, quarters
from sed_trt.tests.fakes.manifest import fake_manifest

BUCKETS = (2, 4, 8, 16)


def shapes(engines: FakeEngines, stage: str, *names: str) -> set[tuple[int, ...]]:
    return {tuple(seen[name][0] for name in names) for seen in engines[stage].shapes}


def pairs(*sizes: int) -> set[tuple[int, ...]]:
    return {(size, smaller) for size in sizes for smaller in sizes if smaller <= size}


def test_every_bucket_of_the_vocabulary_is_visited() -> None:
    engines = FakeEngines(BUCKETS)
    vocabulary = colour_vocabulary("red", "green", "blue")
    warm_up(engines, fake_manifest(), vocabulary.text, 3)
    assert shapes(engines, "pixels", "image") == {(1,)}
    assert shapes(engines, "image", "pixels") == {(1,), (2,), (3,)}
    assert shapes(engines, "scout", "text") == {(3,)}
    assert shapes(engines, "decode1", "kept0") == {(2,), (4,)}
    assert shapes(engines, "decode2", "x1", "kept1") == pairs(2, 4)
    assert shapes(engines, "decode3", "x2", "kept2") == pairs(2, 4)
    assert shapes(engines, "label", "kept") == {(2,), (4,)}
    assert engines["text"].shapes == []


def test_pictures_then_meet_no_new_category_count() -> None:
    engines = FakeEngines(BUCKETS)
    vocabulary = colour_vocabulary()
    warm_up(engines, fake_manifest(), vocabulary.text, 1)
    names = {"decode1": ("text", "kept0"), "decode2": ("x1", "kept1"), "decode3": ("x2", "kept2")}
    warmed = {stage: shapes(engines, stage, *inputs) for stage, inputs in names.items()}
    for kept in (1, 2, 3, 4):
        (encoded,) = encode(engines, [prepare(engines, quarters(), None)])
        finish(encoded, vocabulary, Budget(kept))
    assert {stage: shapes(engines, stage, *inputs) for stage, inputs in names.items()} == warmed


def test_without_a_vocabulary_all_buckets_and_the_text_encoder() -> None:
    engines = FakeEngines(BUCKETS)
    warm_up(engines, fake_manifest(), None, 1)
    assert shapes(engines, "decode1", "kept0") == {(bucket,) for bucket in BUCKETS}
    assert shapes(engines, "decode3", "x2", "kept2") == pairs(*BUCKETS)
    assert shapes(engines, "text", "tokens") == {(256,)}


def test_one_pass_where_sizes_do_not_matter() -> None:
    engines = FakeEngines()
    warm_up(engines, fake_manifest(), None, 1)
    assert {stage: len(engine.shapes) for stage, engine in engines.engines.items()} == dict.fromkeys(
        engines.engines, 1
    )
    assert shapes(engines, "text", "tokens") == {(1,)}


def test_every_label_run_fits_the_engines() -> None:
    limits = Limits(1024)
    engines = FakeEngines(category_buckets(limits.max_categories))
    warm_up(engines, fake_manifest(), None, 1)
    profiles = stage_profiles(fake_manifest(), limits)["label"]
    assert [choose_profile(profiles, shapes) for shapes in engines["label"].shapes] == [
        0,
        0,
        0,
        1,
        1,
        2,
        2,
        2,
    ]


@pytest.mark.parametrize("buckets", [None, BUCKETS])
def test_progress_ends_at_its_total(buckets: tuple[int, ...] | None) -> None:
    seen: list[tuple[int, int]] = []
    text = np.ones((5, 1, 3), np.float32)
    warm_up(FakeEngines(buckets), fake_manifest(), text, 2, lambda done, total: seen.append((done, total)))
    total = seen[0][1]
    assert seen == [(done, total) for done in range(1, total + 1)]
