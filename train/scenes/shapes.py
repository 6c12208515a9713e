"""Shapes as polygons with roles, measured in heights: x from 0 to the aspect, y from 0 (top) to 1."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray


class Role(IntEnum):
    """What a polygon stands for; its colour follows from the role and the colour of the thing."""

    EMPTY = 0
    BODY = 1
    PATTERN = 2
    SHADE = 3
    LIGHT = 4
    OUTLINE = 5
    DARK = 6
    GLASS = 7
    PALE = 8
    SKIN = 9
    WOOD = 10
    METAL = 11
    GOLD = 12
    LEAF = 13


@dataclass(frozen=True)
class Part:
    """A polygon, (N, 2) points in heights of the thing, painted over the parts before it."""

    role: Role
    points: NDArray[np.float64]


@dataclass(frozen=True)
class Shape:
    """Parts from back to front, `aspect` heights wide."""

    aspect: float
    parts: tuple[Part, ...]


def poly(role: Role, *points: tuple[float, float]) -> Part:
    """A polygon through the points."""
    return Part(role, np.array(points, dtype=np.float64))


def box(role: Role, left: float, top: float, right: float, bottom: float) -> Part:
    """An upright rectangle."""
    return poly(role, (left, top), (right, top), (right, bottom), (left, bottom))


def ellipse(role: Role, x: float, y: float, rx: float, ry: float | None = None, tilt: float = 0.0) -> Part:
    """An ellipse about (x, y), turned clockwise by `tilt` degrees; a circle when `ry` is left out."""
    angle = np.linspace(0, 2 * math.pi, 24, endpoint=False)
    across, down = rx * np.cos(angle), (rx if ry is None else ry) * np.sin(angle)
    cos, sin = math.cos(math.radians(tilt)), math.sin(math.radians(tilt))
    return Part(role, np.stack([x + cos * across - sin * down, y + sin * across + cos * down], axis=1))


def bar(role: Role, x0: float, y0: float, x1: float, y1: float, width: float) -> Part:
    """A straight bar from (x0, y0) to (x1, y1)."""
    length = math.hypot(x1 - x0, y1 - y0)
    across, down = -(y1 - y0) / length * width / 2, (x1 - x0) / length * width / 2
    return poly(
        role,
        (x0 + across, y0 + down),
        (x1 + across, y1 + down),
        (x1 - across, y1 - down),
        (x0 - across, y0 - down),
    )


def arc(role: Role, x: float, y: float, radius: float, width: float, start: float, end: float) -> Part:
    """A bent bar about (x, y) from `start` to `end` degrees, clockwise from three o'clock."""
    angle = np.radians(np.linspace(start, end, 16))
    ring = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    centre = np.array([x, y])
    outer, inner = centre + ring * (radius + width / 2), centre + ring[::-1] * (radius - width / 2)
    return Part(role, np.concatenate([outer, inner]))


def shape(aspect: float, *parts: Part | Iterable[Part]) -> Shape:
    """Gather parts, and groups of parts, into a shape."""
    flat: list[Part] = []
    for part in parts:
        flat.extend([part] if isinstance(part, Part) else part)
    return Shape(aspect, tuple(flat))
