"""A scene: the image, its labels and its caption, all from one seed."""

from dataclasses import dataclass, field
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from .drawing import PATTERNS, draw_sprite, relight
from .names import HELD_OUT, INDEX, PAIRS, PLAIN_THINGS, STUFF, caption
from .textures import cut_texture
from .things import SHOWN_AS, Place

Split = Literal["train", "test"]
Point = tuple[float, float]

_STREAMS: Final[dict[str, int]] = {"train": 0, "test": 1}
_SEEN_PAIRS: Final = tuple(name for name in PAIRS if name not in HELD_OUT)
# Named from 60 pixels at 256x256 on, and only if so much of it is not covered.
_MIN_AREA: Final = 60 / 256**2
_MIN_VISIBLE: Final = 0.15
_OPAQUE: Final = [255 if alpha >= 128 else 0 for alpha in range(256)]
_GROUNDS: Final = ("grass", "sand", "water", "road", "snow", "wheat field")
_WALLS: Final = ("brick wall", "stone wall", "wallpaper")
_FLOORS: Final = ("wooden floor", "tiled floor", "carpet")
_BACKDROPS: Final = ("mountain", "mountain", "hedge", "stone wall")


@dataclass(frozen=True)
class Scene:
    """One scene.

    Attributes:
        image: RGB uint8 (size, size, 3).
        labels: uint16 (size, size), indices into `VOCABULARY`.
        caption: names all `things`, patterns included, and all `stuff` or, now and then, none of it.
        things: vocabulary names of the things that can be seen well enough to be named.
        stuff: likewise of the stuff.
    """

    image: NDArray[np.uint8]
    labels: NDArray[np.uint16]
    caption: str
    things: tuple[str, ...]
    stuff: tuple[str, ...]


def make_scene(seed: int, size: int = 256, split: Split = "train", max_things: int = 5) -> Scene:
    """The scene of a seed.

    Args:
        seed: the same one gives unrelated scenes in the two splits.
        size: height and width in pixels.
        split: "train" never shows nor names a held-out pair; in "test" about half of the coloured things are
            held-out pairs.
        max_things: limit on the number of things.

    Raises:
        ValueError: the seed is negative, the size below 32, the split unknown or `max_things` negative.
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
    things = [_place(name, count, layout, size, rng) for name in _choose(split, count, rng)]
    # What stands lower is nearer.
    things.sort(key=lambda thing: thing.top + thing.sprite.height)
    canvas, owner, uncovered = _paint(layout, things, size, rng)

    names = [layer.stuff for layer in layout.layers] + [thing.name for thing in things]
    described = [layer.stuff for layer in layout.layers] + [thing.described for thing in things]
    visible = np.bincount(owner.ravel(), minlength=len(names))
    clear = (visible >= _MIN_AREA * size**2) & (visible >= _MIN_VISIBLE * uncovered)
    if not clear.any():
        clear[visible.argmax()] = True
    clear_stuff = [k for k in np.flatnonzero(clear) if k < len(layout.layers)]
    clear_things = [k for k in np.flatnonzero(clear) if k >= len(layout.layers)]
    stuff = tuple(names[k] for k in clear_stuff)
    return Scene(
        image=relight(canvas, rng),
        labels=np.array([INDEX[name] for name in names], dtype=np.uint16)[owner],
        caption=caption([described[k] for k in clear_things], stuff, rng),
        things=tuple(names[k] for k in clear_things),
        stuff=stuff,
    )


def _paint(
    layout: "SceneLayout", things: "list[_PlacedThing]", size: int, rng: np.random.Generator
) -> tuple[Image.Image, NDArray[np.uint8], NDArray[np.int64]]:
    """Paint the layers and then the things.

    Returns:
        The image, in RGB; which layer or thing each pixel shows, (size, size), layers counted first; and for
        each layer and thing its pixels before things cover it.
    """
    canvas = Image.new("RGB", (size, size))
    owner = Image.new("L", (size, size))
    for index, layer in enumerate(layout.layers):
        corners = [(x * size, y * size) for x, y in layer.polygon]
        mask = Image.new("1", (size, size))
        ImageDraw.Draw(mask).polygon(corners, fill=1)
        left, top, right, bottom = mask.getbbox() or (0, 0, 1, 1)
        texture = cut_texture(layer.stuff, right - left, bottom - top, size, rng)
        canvas.paste(texture, (left, top), mask.crop((left, top, right, bottom)))
        owner.paste(index, (0, 0), mask)
    count = len(layout.layers) + len(things)
    uncovered = np.bincount(np.asarray(owner).ravel(), minlength=count)
    for index, thing in enumerate(things, len(layout.layers)):
        canvas.paste(thing.sprite, (thing.left, thing.top), thing.sprite)
        opaque = thing.sprite.getchannel("A").point(_OPAQUE, "1")
        owner.paste(index, (thing.left, thing.top), opaque)
        uncovered[index] = opaque.histogram()[255]
    return canvas, np.asarray(owner), uncovered


@dataclass(frozen=True)
class Layer:
    """Stuff within a polygon whose points are fractions of the image's size."""

    stuff: str
    polygon: tuple[Point, ...] = ((0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0))


@dataclass(frozen=True)
class SceneLayout:
    """Layers from back to front, and the heights, as fractions, between which the things of a place are."""

    layers: tuple[Layer, ...]
    bands: dict[Place, tuple[float, float]] = field(default_factory=dict)


def random_layout(rng: np.random.Generator) -> SceneLayout:
    """An outdoor or indoor layout, two stuffs side by side, or one alone."""
    kind = rng.random()
    if kind < 0.42:
        return _outdoors(rng)
    if kind < 0.70:
        return _indoors(rng)
    if kind < 0.86:
        return _two_sides(rng)
    return SceneLayout((Layer(_pick(STUFF, rng)),))


def _pick(names: tuple[str, ...], rng: np.random.Generator) -> str:
    return names[int(rng.integers(len(names)))]


def _below(stuff: str, left: float, right: float) -> Layer:
    return Layer(stuff, ((0.0, left), (1.0, right), (1.0, 1.0), (0.0, 1.0)))


def _outdoors(rng: np.random.Generator) -> SceneLayout:
    horizon = float(rng.uniform(0.3, 0.7))
    tilt = float(rng.uniform(-0.04, 0.04))
    layers = [Layer("sky")]
    if rng.random() < 0.45:
        layers.append(_backdrop(_pick(_BACKDROPS, rng), horizon, rng))
    ground = _pick(_GROUNDS, rng)
    layers.append(_below(ground, horizon - tilt, horizon + tilt))
    near = horizon
    if rng.random() < 0.4:
        second = _pick(tuple(stuff for stuff in _GROUNDS if stuff != ground), rng)
        near = horizon + float(rng.uniform(0.35, 0.6)) * (1 - horizon)
        lean = float(rng.uniform(-0.12, 0.12))
        layers.append(_below(second, near - lean, near + lean))
    bands = {Place.SKY: (0.0, horizon), Place.GROUND: (near, 1.0)}
    if layers[-1].stuff == "water":
        bands[Place.WATER] = bands.pop(Place.GROUND)
    elif ground == "water":
        bands[Place.WATER] = (horizon, near)
    return SceneLayout(tuple(layers), bands)


def _backdrop(stuff: str, horizon: float, rng: np.random.Generator) -> Layer:
    rise = float(rng.uniform(0.12, 0.28))
    jagged = 0.75 if stuff == "mountain" else 0.12
    xs = np.linspace(0, 1, int(rng.integers(5, 10)))
    ys = horizon - rise * (1 - jagged * rng.random(len(xs)))
    ridge = tuple((float(x), float(y)) for x, y in zip(xs, ys, strict=True))
    return Layer(stuff, (*ridge, (1.0, horizon + 0.06), (0.0, horizon + 0.06)))


def _indoors(rng: np.random.Generator) -> SceneLayout:
    edge = float(rng.uniform(0.35, 0.75))
    tilt = float(rng.uniform(-0.05, 0.05))
    floor = _pick(_FLOORS if rng.random() < 0.75 else _GROUNDS, rng)
    band = {Place.WATER if floor == "water" else Place.GROUND: (edge, 1.0)}
    return SceneLayout((Layer(_pick(_WALLS, rng)), _below(floor, edge - tilt, edge + tilt)), band)


def _two_sides(rng: np.random.Generator) -> SceneLayout:
    first, second = (STUFF[int(k)] for k in rng.choice(len(STUFF), 2, replace=False))
    top, bottom = (float(x) for x in rng.uniform(0.2, 0.8, 2))
    return SceneLayout((Layer(first), Layer(second, ((0.0, 0.0), (top, 0.0), (bottom, 1.0), (0.0, 1.0)))))


@dataclass(frozen=True)
class _PlacedThing:
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


def _place(name: str, crowd: int, layout: SceneLayout, size: int, rng: np.random.Generator) -> _PlacedThing:
    colour, _, kind = name.partition(" ")
    thing = SHOWN_AS[kind or colour]
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
    return _PlacedThing(name, described, sprite, int(left), int(top))
