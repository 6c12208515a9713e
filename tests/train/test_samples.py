"""Augmentation, the choice of categories, and which sample is where in a run."""

import colorsys
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from sed_trt.errors import InputError
from sed_trt.runtime.images import short_side_size
from sed_trt.tests.fakes.training_data import NAMES, small, write_own_data
from sed_trt.train.augmentation import (
    augmented,
    brightness,
    change_colours,
    contrast,
    hue,
    saturation,
    scaled,
)
from sed_trt.train.config import TrainConfig
from sed_trt.train.datasets import IGNORED, Sample
from sed_trt.train.samples import (
    ABSENT,
    Batch,
    CategorySampler,
    TrainedNames,
    TrainingSamples,
    micro_batch,
    open_training_data,
    plain_names,
    scene_names,
    training_batches,
)
from sed_trt.train.scenes import HELD_OUT, VOCABULARY, longer_vocabulary, make_scene


def opened(config: TrainConfig) -> TrainingSamples:
    data, names = open_training_data(config)
    return TrainingSamples(data, CategorySampler(names, config.categories, config.seed), config)


def batches_of(config: TrainConfig, first: int = 0, rank: int = 0, processes: int = 1) -> list[Batch]:
    return list(training_batches(opened(config), first, rank, processes, pin=False))


class Drawn(np.random.Generator):
    """Random numbers that the test gives."""

    def __init__(self, coins: list[float], between: float, whole: int = 0) -> None:
        super().__init__(np.random.PCG64(0))
        self.coins, self.between, self.whole = iter(coins), between, whole

    def random(self) -> float:  # type: ignore[override]
        return next(self.coins)

    def uniform(self, low: float, high: float) -> float:  # type: ignore[override]
        return low + self.between * (high - low)

    def integers(self, low: int, high: int) -> int:  # type: ignore[override]
        assert low <= self.whole < high
        return self.whole


def test_colours_change_by_the_published_amounts() -> None:
    image = np.array([[[200, 100, 50], [10, 250, 30]]], dtype=np.uint8)
    assert (brightness(image, Drawn([0.9], 1.0)) == (image.astype(int) + 32).clip(0, 255)).all()
    assert (brightness(image, Drawn([0.9], 0.0)) == (image.astype(int) - 32).clip(0)).all()
    assert (contrast(image, Drawn([0.9], 0.0)) == image // 2).all()
    assert (contrast(image, Drawn([0.9], 1.0)) == (image * 1.5).clip(0, 255).astype(int)).all()
    for change in (brightness, contrast, saturation, hue):
        assert change(image, Drawn([0.1], 1.0)) is image
    for name, random in (("saturation", Drawn([0.9], 0.0)), ("hue", Drawn([0.9], 0.0, whole=15))):
        changed = saturation(image, random) if name == "saturation" else hue(image, random)
        for before, after in zip(image[0] / 255.0, changed[0] / 255.0, strict=True):
            h, s, v = colorsys.rgb_to_hsv(*before)
            turned = (h, s / 2, v) if name == "saturation" else ((h + 30 / 360) % 1, s, v)
            wanted = colorsys.hsv_to_rgb(*turned)
            # A step of Pillow's hue is 6/255 of the strongest colour.
            assert np.abs(np.array(wanted) - after).max() < 6 / 255


def test_contrast_comes_second_or_last() -> None:
    random = np.random.default_rng(1)
    image = random.integers(0, 256, (8, 8, 3), dtype=np.uint8)
    all_of_them = [0.9] * 4
    second = change_colours(image, Drawn([0.9, 0.1, *all_of_them], 0.9, whole=7))
    last = change_colours(image, Drawn([0.9, 0.9, *all_of_them], 0.9, whole=7))

    def step(change: object, value: np.ndarray) -> np.ndarray:
        return change(value, Drawn([0.9], 0.9, whole=7))  # type: ignore[operator]

    lit = step(brightness, image)
    assert (second == step(hue, step(saturation, step(contrast, lit)))).all()
    assert (last == step(contrast, step(hue, step(saturation, lit)))).all()
    assert (second != last).any()


def test_scaling_rounds_down_and_cuts() -> None:
    assert scaled(np.array([0, 3, 200], dtype=np.uint8), factor=1.5, offset=-2).tolist() == [0, 2, 255]


def test_sizes_are_the_published_ones() -> None:
    assert short_side_size(480, 640, 768, 2666) == (768, 1024)
    assert short_side_size(640, 427, 768, 2666) == (1151, 768)
    # The longer side would be 3072.
    assert short_side_size(100, 400, 768, 2666) == (667, 2666)


def test_labels_follow_the_image() -> None:
    labels = np.repeat(np.repeat(np.arange(12, dtype=np.int32).reshape(3, 4), 20, 0), 20, 1)
    image = np.repeat((labels * 20).astype(np.uint8)[..., None], 3, 2)
    config = small("x", short_side=None, colour=False, crop=32)
    mirrored = 0
    for seed in range(30):
        sample = augmented(Sample(image, labels), config, np.random.default_rng(seed))
        assert sample.image.shape == (32, 32, 3) and sample.labels.shape == (32, 32)
        assert (sample.image[..., 0] == sample.labels * 20).all()
        mirrored += int(sample.labels[0, 0] % 4 > sample.labels[0, -1] % 4)
    assert 5 < mirrored < 25


def test_what_is_missing_is_grey_and_ignored() -> None:
    config = small("x", short_side=32, long_side=64, crop=32, colour=False, flip=False)
    sample = Sample(np.zeros((10, 40, 3), dtype=np.uint8), np.full((10, 40), 3, dtype=np.int32))
    padded = augmented(sample, config, np.random.default_rng(0))
    assert (padded.image[:16] == 0).all() and (padded.image[16:] == 128).all()
    assert (padded.labels[:16] == 3).all() and (padded.labels[16:] == IGNORED).all()


def test_sampler_keeps_what_is_present_and_never_shows_a_held_out_pair() -> None:
    sampler = CategorySampler(scene_names(), 20, seed=0)
    every = np.array(sampler.trained.names)
    assert not set(every) & set(HELD_OUT)
    assert set(ABSENT) <= set(every)
    for seed in range(10):
        labels = make_scene(seed, 64).labels.astype(np.int32)
        labels[0, 0] = -1
        chosen, targets = sampler.draw(labels, step=0, number=seed)
        assert chosen is not None and targets.shape == labels.shape
        names = every[chosen]
        assert len(set(names)) == len(names)
        assert targets[0, 0] == -1
        known = targets >= 0
        assert known.sum() == known.size - 1
        assert (names[targets[known]] == np.array(VOCABULARY)[labels[known]]).all()


def test_samples_of_a_step_get_as_many_categories_and_steps_differ() -> None:
    sampler, labels = CategorySampler(scene_names(), 20, seed=0), np.zeros((2, 2), dtype=np.int32)

    def count(step: int, number: int) -> int:
        chosen, _ = sampler.draw(labels, step, number)
        assert chosen is not None
        return len(chosen)

    counts = {count(step, 4 * step) for step in range(60)}
    assert min(counts) >= 10 and max(counts) <= 30 and len(counts) > 10
    assert {count(7, number) for number in range(28, 32)} == {count(7, 0)}


def test_number_of_categories_stays_where_it_is_to() -> None:
    sampler = CategorySampler(scene_names(), 171, seed=0, vary=False)
    labels = make_scene(0, 64).labels.astype(np.int32)
    draws = [sampler.draw(labels, step, step) for step in range(3)]
    assert all(chosen is not None and len(chosen) == 171 for chosen, _ in draws)
    few, _ = CategorySampler(plain_names("abc"), 4, seed=0, vary=False).draw(np.zeros((2, 2), int), 0, 0)
    assert few is not None and len(few) == 3


def test_sampler_depends_on_seed_and_number_alone() -> None:
    labels = make_scene(0, 64).labels.astype(np.int32)

    def chosen(seed: int, number: int) -> list[int]:
        found, _ = CategorySampler(scene_names(), 20, seed).draw(labels, 3, number)
        assert found is not None
        return found.tolist()

    assert chosen(0, 12) == chosen(0, 12)
    assert chosen(0, 12) != chosen(0, 13) and chosen(0, 12) != chosen(1, 12)


def test_what_does_not_fit_among_the_categories_has_none() -> None:
    labels = np.arange(12).reshape(3, 4)
    chosen, targets = CategorySampler(plain_names("abcdefghijkl"), 4, seed=0).draw(labels, 0, 0)
    assert chosen is not None and len(set(chosen)) == len(chosen) < 12
    inside = targets >= 0
    assert sorted(chosen[targets[inside]]) == sorted(labels[inside]) == sorted(chosen)


def test_all_categories_are_the_names_of_the_data_set() -> None:
    labels = np.array([[2, -1], [0, 1]])
    chosen, targets = CategorySampler(plain_names("abc"), None, seed=0).draw(labels, 0, 0)
    assert chosen is None and targets.tolist() == labels.tolist()
    swapped = TrainedNames(("b", "a"), np.array([1, 0, -1]))
    assert CategorySampler(swapped, None, seed=0).draw(labels, 0, 0)[1].tolist() == [[-1, -1], [1, 0]]


def test_tested_vocabularies_hold_no_absent_name_of_training() -> None:
    assert not set(ABSENT) & set(longer_vocabulary(847))
    assert len(ABSENT) > 300


def test_every_pass_sees_every_image_in_an_order_of_its_own(data: Path) -> None:
    samples = opened(small(data, seed=4))
    passes = [[samples.index(6 * epoch + place) for place in range(6)] for epoch in range(3)]
    assert all(sorted(each) == list(range(6)) for each in passes)
    assert passes[0] != passes[1] != passes[2]
    assert passes[0] == [opened(small(data, seed=4)).index(place) for place in range(6)]
    assert passes[0] != [opened(small(data, seed=5)).index(place) for place in range(6)]


def test_processes_and_parts_share_the_samples_of_a_step() -> None:
    config = small("x", batch=12, accumulate=3)
    shares = [micro_batch(config, 5, rank, 2, part) for rank in range(2) for part in range(3)]
    assert sorted(number for share in shares for number in share) == list(range(60, 72))


def test_batches_are_the_same_from_any_step_process_and_number_of_workers(data: Path) -> None:
    config = small(data, batch=4, steps=3)
    whole = batches_of(config)
    assert (
        len(whole) == 3 and whole[0].images.shape == (4, 32, 32, 3) and whole[0].targets.shape == (4, 32, 32)
    )
    later = batches_of(config, first=2)
    halves = [batches_of(config, rank=rank, processes=2) for rank in range(2)]
    working = batches_of(small(data, batch=4, steps=3, workers=2))
    assert len(later) == 1
    for step, batch in enumerate(whole):
        assert torch.equal(batch.images, working[step].images)
        assert torch.equal(batch.targets, working[step].targets)
        for rank, half in enumerate(halves):
            share = slice(2 * rank, 2 * rank + 2)
            assert torch.equal(half[step].images, batch.images[share])
            assert torch.equal(half[step].targets, batch.targets[share])
            chosen, whole_chosen = half[step].chosen, batch.chosen
            assert chosen is not None and whole_chosen is not None
            assert torch.equal(chosen, whole_chosen[share])
    assert torch.equal(later[0].images, whole[2].images)


def test_targets_are_every_so_manyeth_label(data: Path) -> None:
    fine, coarse = (
        batches_of(small(data, target_size=size, categories=None, steps=1))[0] for size in (32, 8)
    )
    assert fine.chosen is None
    assert torch.equal(coarse.targets, fine.targets[:, 2::4, 2::4])
    assert set(fine.targets.unique().tolist()) <= {-1, *range(len(NAMES))}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="memory is pinned for GPUs alone")
def test_batches_for_a_gpu_are_pinned(data: Path) -> None:
    for batch in training_batches(opened(small(data, steps=1)), 0, 0, 1, pin=True):
        assert batch.chosen is not None
        assert batch.images.is_pinned() and batch.targets.is_pinned() and batch.chosen.is_pinned()


@pytest.mark.parametrize("workers", [0, 1])
def test_broken_image_is_named(tmp_path: Path, data: Path, workers: int) -> None:
    data = Path(shutil.copytree(data, tmp_path / "data"))
    (data / "images" / "3.png").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"^[^\n]*images/3\.png[^\n]*$"):
        batches_of(small(data, batch=2, steps=3, workers=workers))


def test_missing_data_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="nowhere"):
        open_training_data(small(tmp_path / "nowhere"))
    monkeypatch.setenv("SED_DATASETS", str(tmp_path))
    with pytest.raises(InputError, match="coco-stuff"):
        open_training_data(small("coco-stuff"))
    empty = write_own_data(tmp_path / "empty", count=0)
    with pytest.raises(InputError, match="empty"):
        open_training_data(small(empty))


def test_scenes_are_drawn_at_the_size_of_the_crop() -> None:
    config = small("scenes", crop=64, short_side=None, colour=False, steps=2)
    data, _ = open_training_data(config)
    assert len(data) == 4 and data[0].image.shape == (64, 64, 3)
    other, _ = open_training_data(small("scenes", crop=64, short_side=None, steps=2, seed=1))
    assert (other[0].image != data[0].image).any()
