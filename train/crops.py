"""Crops of scenes with captions: what CLIP is pre-trained on."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .scenes import PLAIN_THINGS, STUFF, VOCABULARY, make_scene
from .scenes.captions import caption

# The share of a crop from which on each category is named: less for a thing than for stuff.
LIMITS = np.array([0.2 if name in STUFF else 0.12 for name in VOCABULARY])


@dataclass(frozen=True)
class Crop:
    """A part of a scene.

    Attributes:
        image: uint8 (size, size, 3), RGB.
        caption: a sentence that names what fills a good part of it.
        names: indices into VOCABULARY of what the caption may name, increasing.
    """

    image: NDArray[np.uint8]
    caption: str
    names: tuple[int, ...]


def caption_crops(seed: int, count: int, size: int, scene_size: int = 256) -> list[Crop]:
    """Crops of the training scene of `seed`, most of them around one thing, so that captions teach its kind.

    Args:
        seed: of the scene and of the crops.
        count: how many.
        size: side of a crop, in pixels.
        scene_size: side of the scene they are cut from, in pixels.
    """
    random = np.random.default_rng([seed, 2])
    scene = make_scene(seed, scene_size, max_things=3)
    present = np.flatnonzero(np.bincount(scene.labels.ravel())).tolist()
    things = [label for label in present if is_thing(label)]
    crops = []
    for number in range(count):
        around = things[number % len(things)] if things and random.random() < 0.85 else None
        left, top, side = window(scene.labels, around, random)
        box = (left, top, left + side, top + side)
        picture = Image.fromarray(scene.image).resize((size, size), Image.Resampling.BILINEAR, box=box)
        inside = scene.labels[top : top + side, left : left + side]
        crops.append(describe(np.asarray(picture), inside, random))
    return crops


def is_thing(label: int) -> bool:
    """Whether the category is drawn as an object."""
    return VOCABULARY[label] not in STUFF


def window(
    labels: NDArray[np.uint16], around: int | None, random: np.random.Generator
) -> tuple[int, int, int]:
    """A square inside the scene, (left, top, side), somewhat larger than the thing it is around, if any."""
    whole = labels.shape[0]
    if around is None:
        side = int(random.uniform(0.3, 0.8) * whole)
        left, top = (int(value) for value in random.integers(0, whole - side + 1, 2))
        return left, top, side
    rows, columns = np.nonzero(labels == around)
    extent = max(np.ptp(rows), np.ptp(columns)) + 1
    side = int(np.clip(extent * random.uniform(1.0, 1.6), whole // 4, whole))
    shift = random.uniform(-0.15, 0.15, 2) * side
    middle = ((rows.min() + rows.max()) / 2 + shift[0], (columns.min() + columns.max()) / 2 + shift[1])
    top, left = (int(np.clip(value - side / 2, 0, whole - side)) for value in middle)
    return left, top, side


def describe(image: NDArray[np.uint8], labels: NDArray[np.uint16], random: np.random.Generator) -> Crop:
    """Caption a crop by what fills a good part of it, or by what fills most if nothing does."""
    shares = np.bincount(labels.ravel(), minlength=len(VOCABULARY)) / labels.size
    named = [int(label) for label in np.flatnonzero(shares >= LIMITS)] or [int(shares.argmax())]
    things = [VOCABULARY[label] for label in named if is_thing(label)]
    stuff = [VOCABULARY[label] for label in named if not is_thing(label)]
    # A caption need not tell everything; without the ground, all it can be matched by is the thing.
    if any(thing not in PLAIN_THINGS for thing in things) and random.random() < 0.6:
        stuff = []
        named = [label for label in named if is_thing(label)]
    return Crop(image, caption(things, stuff, random), tuple(named))
