"""The category names of the procedural scenes, and longer vocabularies made of names never drawn."""

from typing import Final

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
    """Return ``size`` distinct names: ``VOCABULARY``, then names that no scene ever shows.

    Raises ``ValueError`` when ``size`` is below ``len(VOCABULARY)`` or above what can be made (1205).
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
