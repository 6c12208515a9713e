"""The procedural scenes: what is drawn, labelled and said, and that it depends on the seed alone."""

import colorsys
import hashlib
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from functools import cache
from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray

from sed_trt.train.scenes import (
    COLOURS,
    HELD_OUT,
    INDEX,
    PLAIN_THINGS,
    SEEN,
    STUFF,
    THINGS,
    VOCABULARY,
    Scene,
    Split,
    longer_vocabulary,
    make_scene,
)

NAME = re.compile(r"\b(" + "|".join(sorted(VOCABULARY, key=len, reverse=True)) + r")\b")
HUES = {"red": 0, "orange": 28, "yellow": 53, "green": 133, "blue": 225, "purple": 282, "pink": 335}
DIGEST = """
import hashlib
from sed_trt.train.scenes import make_scene
digest = hashlib.sha256()
for seed in range(6):
    scene = make_scene(seed, 96, "test")
    digest.update(scene.image.tobytes() + scene.labels.tobytes() + scene.caption.encode())
print(digest.hexdigest())
"""


@cache
def scenes(split: Split, count: int, size: int) -> tuple[Scene, ...]:
    return tuple(make_scene(seed, size, split) for seed in range(count))


def labelled(scene: Scene) -> set[str]:
    return {VOCABULARY[index] for index in np.unique(scene.labels)}


def areas(scene: Scene) -> Iterator[tuple[str, int]]:
    for index, area in zip(*np.unique(scene.labels, return_counts=True), strict=True):
        yield VOCABULARY[index], int(area)


def test_vocabulary() -> None:
    assert len(VOCABULARY) == len(set(VOCABULARY)) >= 171
    assert set(VOCABULARY) == {*STUFF, *PLAIN_THINGS, *(f"{c} {t}" for c in COLOURS for t in THINGS)}
    assert all(VOCABULARY[index] == name for name, index in INDEX.items())


def test_held_out_is_spread_evenly() -> None:
    assert len(HELD_OUT) == len(set(HELD_OUT)) == 27
    assert set(SEEN) | set(HELD_OUT) == set(VOCABULARY) and not set(SEEN) & set(HELD_OUT)
    colours, things = zip(*(name.split() for name in HELD_OUT), strict=True)
    assert set(Counter(colours).values()) == {3} and set(colours) == set(COLOURS)
    assert set(Counter(things).values()) <= {1, 2} and set(things) == set(THINGS)


@pytest.mark.parametrize("size", [len(VOCABULARY), 459, 847, 1181])
def test_longer_vocabulary(size: int) -> None:
    names = longer_vocabulary(size)
    assert len(names) == len(set(names)) == size
    assert names[: len(VOCABULARY)] == VOCABULARY
    assert longer_vocabulary(1181)[:size] == names


@pytest.mark.parametrize("size", [-1, 0, len(VOCABULARY) - 1, 1206, 10**9])
def test_longer_vocabulary_rejects(size: int) -> None:
    with pytest.raises(ValueError, match=f"between {len(VOCABULARY)} and 1205 names, not {size}"):
        longer_vocabulary(size)


def test_same_seed_same_scene_in_another_process() -> None:
    digest = hashlib.sha256()
    for seed in range(6):
        scene = make_scene(seed, 96, "test")
        digest.update(scene.image.tobytes() + scene.labels.tobytes() + scene.caption.encode())
    environment = os.environ | {"PYTHONHASHSEED": "7", "PYTHONPATH": os.pathsep.join(sys.path)}
    other = subprocess.run(
        [sys.executable, "-c", DIGEST], env=environment, capture_output=True, text=True, check=True
    )
    assert other.stdout.strip() == digest.hexdigest()


def test_global_random_state_plays_no_part() -> None:
    np.random.seed(1)
    untouched = np.random.random()
    np.random.seed(1)
    first = make_scene(5)
    assert np.random.random() == untouched
    np.random.seed(2)
    second = make_scene(5)
    assert np.array_equal(first.image, second.image) and np.array_equal(first.labels, second.labels)
    assert first.caption == second.caption


def test_seeds_and_splits_give_different_scenes() -> None:
    drawn = [*scenes("train", 300, 256)[:40], *scenes("test", 300, 256)[:40]]
    assert len({scene.image.tobytes() for scene in drawn}) == 80


def test_train_has_no_held_out_pair() -> None:
    for scene in scenes("train", 300, 256):
        assert not labelled(scene) & set(HELD_OUT)
        assert not set(scene.things) & set(HELD_OUT)
        assert not [name for name in HELD_OUT if name in scene.caption]


def test_half_of_the_coloured_things_in_test_are_held_out() -> None:
    coloured = [
        name for scene in scenes("test", 300, 256) for name in scene.things if name not in PLAIN_THINGS
    ]
    share = sum(name in HELD_OUT for name in coloured) / len(coloured)
    assert 0.42 < share < 0.58


def test_every_name_is_drawn() -> None:
    small = scenes("test", 1200, 64)
    assert set().union(*map(labelled, small)) == set(VOCABULARY)


def test_seen_pairs_are_about_equally_frequent() -> None:
    counts = Counter(
        name.split()[0]
        for scene in scenes("train", 300, 256)
        for name in scene.things
        if name not in PLAIN_THINGS
    )
    assert set(counts) == set(COLOURS)
    assert max(counts.values()) < 2 * min(counts.values())


@pytest.mark.parametrize("size", [32, 100, 256, 333])
def test_shapes_and_types(size: int) -> None:
    for seed in range(8):
        scene = make_scene(seed, size)
        assert scene.image.shape == (size, size, 3) and scene.image.dtype == np.uint8
        assert scene.labels.shape == (size, size) and scene.labels.dtype == np.uint16
        assert scene.labels.max() < len(VOCABULARY)
        assert scene.caption


def test_a_seed_shows_the_same_at_every_size() -> None:
    agreement = [
        np.mean(make_scene(seed, 128).labels == make_scene(seed, 256).labels[::2, ::2]) for seed in range(20)
    ]
    assert min(agreement) > 0.9


@pytest.mark.parametrize("most", [0, 1, 2, 7])
def test_max_things(most: int) -> None:
    counts = [
        sum(name not in STUFF for name in labelled(make_scene(seed, 128, "train", most)))
        for seed in range(60)
    ]
    assert max(counts) <= most
    assert max(counts) >= min(most, 5)


def test_caption_names_what_is_visible() -> None:
    with_stuff = 0
    for scene in [*scenes("train", 300, 256), *scenes("test", 300, 256)]:
        said = NAME.findall(scene.caption)
        stuff = [name for name in said if name in STUFF]
        assert Counter(name for name in said if name not in STUFF) == Counter(scene.things)
        assert set(stuff) == set(scene.stuff) or (scene.things and not stuff)
        with_stuff += bool(stuff)
    assert 500 < with_stuff < 600


def test_named_means_visible() -> None:
    covered = 0
    for scene in scenes("train", 300, 256):
        named = {*scene.things, *scene.stuff}
        assert named
        assert named <= labelled(scene)
        for name, area in areas(scene):
            assert area >= 60 or name not in named
            # Even stuff that fills the image has less than this when 85 % of it is covered.
            assert area < 0.16 * 256**2 or name in named
            covered += area >= 60 and name not in named
    assert covered


def test_captions_vary() -> None:
    frames = {NAME.sub("_", scene.caption) for scene in scenes("train", 300, 256)}
    assert len(frames) > 100
    words = set(" ".join(scene.caption for scene in scenes("train", 300, 256)).split())
    assert {"striped", "dotted", "checked"} <= words


def test_articles() -> None:
    for scene in scenes("train", 300, 256):
        words = re.findall(r"[a-z]+", scene.caption)
        for first, second in pairwise(words):
            assert first != "a" or second[0] not in "aeiou", scene.caption
            assert first != "an" or second[0] in "aeiou", scene.caption


def pixels_of(colour: str) -> NDArray[np.float64]:
    indices = [INDEX[f"{colour} {thing}"] for thing in THINGS]
    return np.concatenate(
        [scene.image[np.isin(scene.labels, indices)] for scene in scenes("test", 300, 256)]
    ).astype(np.float64)


@pytest.mark.parametrize("colour", sorted(HUES))
def test_labels_agree_with_hue(colour: str) -> None:
    pixels = pixels_of(colour)[::29]
    hues = np.array([colorsys.rgb_to_hsv(*pixel)[0] for pixel in pixels]) * 2 * np.pi
    chroma = pixels.max(axis=1) - pixels.min(axis=1)
    mean = np.degrees(np.angle(np.sum(chroma * np.exp(1j * hues))))
    assert abs((mean - HUES[colour] + 180) % 360 - 180) < 12
    share = np.mean((chroma > 30) & (np.abs((np.degrees(hues) - mean + 180) % 360 - 180) < 25))
    assert share > 0.55


def test_labels_agree_with_white_and_black() -> None:
    white, black = pixels_of("white"), pixels_of("black")
    assert np.median(white.min(axis=1)) > 150
    assert np.median(black.max(axis=1)) < 80


def test_stuffs_differ_in_colour_or_contrast() -> None:
    looks: dict[str, NDArray[np.float64]] = {}
    for name in STUFF:
        seen = [scene.image[scene.labels == INDEX[name]] for scene in scenes("train", 300, 256)]
        pixels = np.concatenate(seen).astype(np.float64)
        looks[name] = np.concatenate([pixels.mean(axis=0), pixels.std(axis=0)])
    for name, look in looks.items():
        nearest = min(np.linalg.norm(look - other) for stuff, other in looks.items() if stuff != name)
        assert nearest > 14, name


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((-1,), "not negative, but -1 is"),
        ((0, 31), "at least 32 pixels wide, not 31"),
        ((0, 256, "validation"), "train or test, not 'validation'"),
        ((0, 256, "train", -1), "no fewer than 0 things, not -1"),
    ],
)
def test_bad_arguments(arguments: tuple[int, int, Split, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_scene(*arguments)
