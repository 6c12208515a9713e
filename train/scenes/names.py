"""The names and sentences of the procedural scenes."""

from collections.abc import Sequence
from typing import Final

import numpy as np

STUFF: Final[tuple[str, ...]] = (
    "sky", "grass", "sand", "water", "brick wall", "road", "snow", "wooden floor", "mountain", "stone wall",
    "tiled floor", "wheat field", "carpet", "hedge", "wallpaper",
)  # fmt: skip
PLAIN_THINGS: Final[tuple[str, ...]] = ("sun", "moon", "cloud", "tree")
COLOURS: Final[tuple[str, ...]] = (
    "red", "orange", "yellow", "green", "blue", "purple", "pink", "white", "black",
)  # fmt: skip
THINGS: Final[tuple[str, ...]] = (
    "house", "car", "bus", "boat", "person", "dog", "bird", "fish", "ball", "fence", "lamp", "chair", "table",
    "flower", "hat", "cup", "kite", "umbrella",
)  # fmt: skip

PAIRS: Final[tuple[str, ...]] = tuple(f"{colour} {thing}" for colour in COLOURS for thing in THINGS)
VOCABULARY: Final[tuple[str, ...]] = STUFF + PLAIN_THINGS + PAIRS
INDEX: Final[dict[str, int]] = {name: index for index, name in enumerate(VOCABULARY)}

# A diagonal through the colour-thing grid: three things for every colour, one or two colours for every thing.
HELD_OUT: Final[tuple[str, ...]] = tuple(
    f"{COLOURS[k % 9]} {THINGS[(5 * k + 2 * (k // 9)) % 18]}" for k in range(27)
)
SEEN: Final[tuple[str, ...]] = tuple(name for name in VOCABULARY if name not in HELD_OUT)

_ABSENT_ADJECTIVES: Final[tuple[str, ...]] = (
    "marble", "silver", "golden", "plastic", "rusty", "leather", "glass", "bronze", "ceramic", "paper",
    "velvet", "bamboo", "copper", "broken", "antique", "folding", "inflatable", "knitted", "electric",
    "frozen", "hollow", "miniature", "gigantic", "transparent", "woven", "painted", "concrete", "rubber",
    "steel", "crystal", "dusty", "modern",
)  # fmt: skip
_ABSENT_NOUNS: Final[tuple[str, ...]] = (
    "statue", "trumpet", "piano", "bicycle", "suitcase", "clock", "mirror", "ladder", "bottle", "violin",
    "telescope", "helmet", "basket", "bridge", "fountain", "candle", "drum", "keyboard", "pillow", "bucket",
    "anchor", "guitar", "laptop", "scissors", "backpack", "teapot", "rocket", "wheelbarrow", "necklace",
    "toothbrush", "microscope", "refrigerator",
)  # fmt: skip


def longer_vocabulary(size: int) -> tuple[str, ...]:
    """`size` distinct names: `VOCABULARY`, then names that no scene ever shows.

    Raises `ValueError` when `size` is below `len(VOCABULARY)` or above what can be made (1205).
    """
    adjectives, nouns = len(_ABSENT_ADJECTIVES), len(_ABSENT_NOUNS)
    longest = len(VOCABULARY) + adjectives * nouns
    if not len(VOCABULARY) <= size <= longest:
        raise ValueError(f"a vocabulary has between {len(VOCABULARY)} and {longest} names, not {size}")
    # Stepping along diagonals mixes the words, so that a short extension already uses all of them.
    absent = tuple(
        f"{_ABSENT_ADJECTIVES[k % adjectives]} {_ABSENT_NOUNS[(k % adjectives + k // adjectives) % nouns]}"
        for k in range(size - len(VOCABULARY))
    )
    return VOCABULARY + absent


_PLACES: Final[dict[str, tuple[str, ...]]] = {
    "sky": ("under the sky", "below the sky", "with the sky behind"),
    "grass": ("on the grass", "on grass"),
    "sand": ("on the sand", "on sand"),
    "water": ("on the water", "by the water"),
    "brick wall": ("in front of a brick wall", "by a brick wall"),
    "road": ("on the road", "on a road"),
    "snow": ("in the snow", "on snow"),
    "wooden floor": ("on a wooden floor", "on the wooden floor"),
    "mountain": ("in front of a mountain", "near a mountain"),
    "stone wall": ("in front of a stone wall", "by a stone wall"),
    "tiled floor": ("on a tiled floor", "on the tiled floor"),
    "wheat field": ("in a wheat field", "by a wheat field"),
    "carpet": ("on a carpet", "on the carpet"),
    "hedge": ("in front of a hedge", "near a hedge"),
    "wallpaper": ("in front of wallpaper", "with wallpaper behind"),
}
_UNCOUNTED: Final = frozenset({"grass", "sand", "water", "snow", "wallpaper"})
_UNIQUE: Final = frozenset({"sky", "sun", "moon"})

_PREFIXES: Final = (
    "a photo of {}", "a photo of {}.", "a photo of {}.", "a picture of {}.", "an image of {}",
    "a drawing of {}.", "a bad photo of {}.", "a good photo of {}.", "a close-up photo of {}.",
    "a cropped photo of {}.", "a bright photo of {}.", "a dark photo of {}.", "a blurry photo of {}.",
    "a rendering of {}.", "itap of {}.", "there is {}.", "there is {} in the scene.", "this is {}.", "{}",
    "{}.", "{}", "we see {}.",
    "a scene with {}.", "a small photo of {}.", "a large photo of {}.", "a low resolution photo of {}.",
)  # fmt: skip


def _counted(name: str) -> str:
    if name in _UNCOUNTED:
        return name
    if name in _UNIQUE:
        return f"the {name}"
    return f"an {name}" if name[0] in "aeiou" else f"a {name}"


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def caption(things: Sequence[str], stuff: Sequence[str], rng: np.random.Generator) -> str:
    """A sentence that names the things (patterns included) and the stuff, at least one in all.

    The order is random. One sentence in eight leaves the stuff out when there are things to name.
    """
    things = [things[k] for k in rng.permutation(len(things))]
    stuff = [stuff[k] for k in rng.permutation(len(stuff))]
    if things and rng.random() < 0.12:
        stuff = []
    form = rng.random()
    if form < 0.2:
        names = things + stuff
        return ", ".join(names[k] for k in rng.permutation(len(names)))
    prefix = _PREFIXES[int(rng.integers(len(_PREFIXES)))]
    if not things or not stuff or form < 0.4:
        names = [_counted(name) for name in things + stuff]
        return prefix.format(_listed([names[k] for k in rng.permutation(len(names))]))
    subject = _listed([_counted(name) for name in things])
    where = " ".join(_PLACES[name][int(rng.integers(len(_PLACES[name])))] for name in stuff)
    if form < 0.5:
        return f"{where}, {subject}."
    if form < 0.6:
        return f"{_listed([_counted(name) for name in stuff])} with {subject}"
    return prefix.format(f"{subject} {where}")
