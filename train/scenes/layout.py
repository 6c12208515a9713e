"""How stuff is laid out behind the things."""

from dataclasses import dataclass, field
from typing import Final

import numpy as np

from .names import STUFF
from .things import Place

_GROUNDS: Final = ("grass", "sand", "water", "road", "snow", "wheat field")
_WALLS: Final = ("brick wall", "stone wall", "wallpaper")
_FLOORS: Final = ("wooden floor", "tiled floor", "carpet")
_BACKDROPS: Final = ("mountain", "mountain", "hedge", "stone wall")

Point = tuple[float, float]


@dataclass(frozen=True)
class Layer:
    """Stuff within a polygon whose points are fractions of the picture's size."""

    stuff: str
    polygon: tuple[Point, ...] = ((0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0))


@dataclass(frozen=True)
class Layout:
    """Layers from back to front, and the heights, as fractions, between which the things of a place are."""

    layers: tuple[Layer, ...]
    bands: dict[Place, tuple[float, float]] = field(default_factory=dict)


def _pick(names: tuple[str, ...], rng: np.random.Generator) -> str:
    return names[int(rng.integers(len(names)))]


def _below(stuff: str, left: float, right: float) -> Layer:
    return Layer(stuff, ((0.0, left), (1.0, right), (1.0, 1.0), (0.0, 1.0)))


def _outdoors(rng: np.random.Generator) -> Layout:
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
    return Layout(tuple(layers), bands)


def _backdrop(stuff: str, horizon: float, rng: np.random.Generator) -> Layer:
    rise = float(rng.uniform(0.12, 0.28))
    jagged = 0.75 if stuff == "mountain" else 0.12
    xs = np.linspace(0, 1, int(rng.integers(5, 10)))
    ys = horizon - rise * (1 - jagged * rng.random(len(xs)))
    ridge = tuple((float(x), float(y)) for x, y in zip(xs, ys, strict=True))
    return Layer(stuff, (*ridge, (1.0, horizon + 0.06), (0.0, horizon + 0.06)))


def _indoors(rng: np.random.Generator) -> Layout:
    edge = float(rng.uniform(0.35, 0.75))
    tilt = float(rng.uniform(-0.05, 0.05))
    floor = _pick(_FLOORS if rng.random() < 0.75 else _GROUNDS, rng)
    band = {Place.WATER if floor == "water" else Place.GROUND: (edge, 1.0)}
    return Layout((Layer(_pick(_WALLS, rng)), _below(floor, edge - tilt, edge + tilt)), band)


def _two_sides(rng: np.random.Generator) -> Layout:
    first, second = (STUFF[int(k)] for k in rng.choice(len(STUFF), 2, replace=False))
    top, bottom = (float(x) for x in rng.uniform(0.2, 0.8, 2))
    return Layout((Layer(first), Layer(second, ((0.0, 0.0), (top, 0.0), (bottom, 1.0), (0.0, 1.0)))))


def random_layout(rng: np.random.Generator) -> Layout:
    """Return an outdoor or indoor layout, two stuffs side by side, or one alone."""
    kind = rng.random()
    if kind < 0.42:
        return _outdoors(rng)
    if kind < 0.70:
        return _indoors(rng)
    if kind < 0.86:
        return _two_sides(rng)
    return Layout((Layer(_pick(STUFF, rng)),))
