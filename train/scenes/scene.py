"""A scene: the picture, its labels and its caption, all from one seed."""

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from .captions import caption
from .layout import Layout, random_layout
from .light import relight
from .names import HELD_OUT, INDEX, PAIRS, PLAIN_THINGS
from .patterns import PATTERNS
from .sprite import draw_sprite
from .textures import cut_texture
from .things import TABLE, Place

Split = Literal["train", "test"]

_STREAMS: Final[dict[str, int]] = {"train": 0, "test": 1}
_SEEN_PAIRS: Final = tuple(name for name in PAIRS if name not in HELD_OUT)
# Named from 60 pixels at 256x256 on, and only if so much of it is not covered.
_MIN_AREA: Final = 60 / 256**2
_MIN_VISIBLE: Final = 0.15
_OPAQUE: Final = [255 if alpha >= 128 else 0 for alpha in range(256)]


@dataclass(frozen=True)
class Scene:
    """One scene.

    ``image`` is uint8 (size, size, 3), RGB; ``labels`` uint16 (size, size), indices into ``VOCABULARY``.
    ``caption`` names all ``things``, patterns included, and all ``stuff`` or, now and then, none of it;
    ``things`` and ``stuff`` are the vocabulary names of what can be seen well enough to be named.
    """

    image: NDArray[np.uint8]
    labels: NDArray[np.uint16]
    caption: str
    things: tuple[str, ...]
    stuff: tuple[str, ...]


@dataclass(frozen=True)
class _Placed:
    """A thing's sprite with the corner it is pasted at, in pixels, and its name with and without pattern."""

    name: str
    described: str
    sprite: Image.Image
    left: int
    top: int


def _choose(split: Split, count: int, rng: np.random.Generator) -> list[str]:
    names: list[str] = []
    while len(names) < count:
        if rng.random() < 0.14:
            pool = PLAIN_THINGS
        elif split == "test" and rng.random() < 0.5:
            pool = HELD_OUT
        else:
            pool = _SEEN_PAIRS
        name = pool[int(rng.integers(len(pool)))]
        if name not in names:
            names.append(name)
    return names


def _place(name: str, crowd: int, layout: Layout, size: int, rng: np.random.Generator) -> _Placed:
    colour, _, kind = name.partition(" ")
    thing = TABLE[kind or colour]
    shape = thing.shapes[int(rng.integers(len(thing.shapes)))]
    # The root of the bounding box's area, so that wide and tall things look equally large.
    if rng.random() < 0.14:
        extent = size * rng.uniform(0.55, 0.85)
    else:
        extent = size * rng.uniform(0.22, 0.56 if crowd < 3 else 0.44)
    proportion = shape.aspect * rng.uniform(0.85, 1.18)
    width, height = extent * proportion**0.5, extent / proportion**0.5
    tilt, flip = rng.uniform(-thing.tilt, thing.tilt), bool(rng.random() < 0.5)
    pattern = "plain"
    if kind and rng.random() < 0.4:
        pattern = PATTERNS[int(rng.integers(1, len(PATTERNS)))]
    sprite = draw_sprite(shape, colour, pattern, width, height, tilt, flip, rng)
    # Up to a sixth may be cut off at the sides.
    left = rng.uniform(-sprite.width / 6, size - sprite.width * 5 / 6)
    band = layout.bands.get(thing.place)
    if band is None or rng.random() < 0.3:
        top = rng.uniform(-sprite.height / 6, size - sprite.height * 5 / 6)
    elif thing.place is Place.SKY:
        middle = rng.uniform(band[0], band[1]) * size
        top = np.clip(middle - sprite.height / 2, -sprite.height / 6, None)
    else:
        top = rng.uniform(band[0] + 0.05, band[1]) * size - sprite.height
        top = np.clip(top, -sprite.height / 6, None)
    described = name if pattern == "plain" else f"{pattern} {name}"
    return _Placed(name, described, sprite, int(left), int(top))


def make_scene(seed: int, size: int = 256, split: Split = "train", max_things: int = 5) -> Scene:
    """Return the scene of that seed, ``size`` pixels square, with up to ``max_things`` things.

    The split "train" never shows nor names a held-out pair; in "test" about half of the coloured things are
    held-out pairs. The same seed gives unrelated scenes in the two splits.

    Raises ``ValueError`` for a negative seed, a size below 32, an unknown split or a negative ``max_things``.
    """
    if seed < 0:
        raise ValueError(f"the seed of a scene is not negative, but {seed} is")
    if size < 32:
        raise ValueError(f"a scene is at least 32 pixels wide, not {size}")
    if split not in _STREAMS:
        raise ValueError(f"the split of a scene is train or test, not {split!r}")
    if max_things < 0:
        raise ValueError(f"a scene has no fewer than 0 things, not {max_things}")
    rng = np.random.default_rng([seed, _STREAMS[split]])
    layout = random_layout(rng)
    count = 0 if max_things == 0 or rng.random() < 0.06 else int(rng.integers(1, max_things + 1))
    placed = [_place(name, count, layout, size, rng) for name in _choose(split, count, rng)]
    # What stands lower is nearer.
    placed.sort(key=lambda item: item.top + item.sprite.height)

    canvas = Image.new("RGB", (size, size))
    layers = Image.new("L", (size, size))
    for index, layer in enumerate(layout.layers):
        corners = [(x * size, y * size) for x, y in layer.polygon]
        mask = Image.new("1", (size, size))
        ImageDraw.Draw(mask).polygon(corners, fill=1)
        left, top, right, bottom = mask.getbbox() or (0, 0, 1, 1)
        texture = cut_texture(layer.stuff, right - left, bottom - top, size, rng)
        canvas.paste(texture, (left, top), mask.crop((left, top, right, bottom)))
        layers.paste(index, (0, 0), mask)
    first_thing = len(layout.layers)
    instances = layers.copy()
    full = np.bincount(np.asarray(layers).ravel(), minlength=first_thing + count)
    for index, item in enumerate(placed, first_thing):
        canvas.paste(item.sprite, (item.left, item.top), item.sprite)
        opaque = item.sprite.getchannel("A").point(_OPAQUE, "1")
        instances.paste(index, (item.left, item.top), opaque)
        full[index] = opaque.histogram()[255]

    names = [layer.stuff for layer in layout.layers] + [item.name for item in placed]
    described = names[:first_thing] + [item.described for item in placed]
    owner = np.asarray(instances)
    visible = np.bincount(owner.ravel(), minlength=len(names))
    clear = (visible >= _MIN_AREA * size**2) & (visible >= _MIN_VISIBLE * full)
    if not clear.any():
        clear[visible.argmax()] = True
    shown = np.flatnonzero(clear)
    said = [described[k] for k in shown if k >= first_thing]
    stuff = [names[k] for k in shown if k < first_thing]
    return Scene(
        image=relight(canvas, rng),
        labels=np.array([INDEX[name] for name in names], dtype=np.uint16)[owner],
        caption=caption(said, stuff, rng),
        things=tuple(names[k] for k in shown if k >= first_thing),
        stuff=tuple(stuff),
    )
