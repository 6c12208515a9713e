"""How things are drawn: shapes as polygons with roles, colours, patterns, and the light on the scene.

Shapes are measured in heights of the thing: x from 0 to the aspect, y from 0 (top) to 1.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

RGB = tuple[int, int, int]
PATTERNS: Final[tuple[str, ...]] = ("plain", "striped", "dotted", "checked")
# Drawn twice as large and reduced, the edges are smooth.
_OVERSAMPLING = 2
_NOISE_SIDE: Final = 1024


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


_OUTLINED = frozenset({Role.BODY, Role.PALE, Role.SKIN})
_COLOURS: Final[dict[str, RGB]] = {
    "red": (212, 26, 30),
    "orange": (246, 128, 14),
    "yellow": (250, 224, 40),
    "green": (28, 158, 56),
    "blue": (26, 72, 214),
    "purple": (122, 34, 160),
    "pink": (250, 146, 190),
    "white": (244, 244, 244),
    "black": (26, 26, 28),
    "sun": (255, 214, 50),
    "moon": (236, 232, 200),
    "cloud": (214, 220, 230),
    "tree": (46, 112, 44),
}
_FIXED: Final[dict[Role, RGB]] = {
    Role.DARK: (44, 44, 50),
    Role.GLASS: (186, 224, 240),
    Role.PALE: (242, 234, 214),
    Role.WOOD: (118, 76, 40),
    Role.METAL: (162, 166, 172),
    Role.GOLD: (232, 190, 60),
    Role.LEAF: (62, 132, 58),
}
_SKINS: Final[tuple[RGB, ...]] = ((236, 190, 158), (206, 152, 112), (150, 100, 68), (98, 64, 44))


def draw_sprite(
    shape: Shape,
    colour: str,
    pattern: str,
    width: float,
    height: float,
    tilt: float,
    flip: bool,
    rng: np.random.Generator,
) -> Image.Image:
    """An RGBA image, cut to the bounds of the thing.

    `width` and `height` are the thing's, in pixels, before it is tilted by `tilt` degrees; `colour`
    is a colour name, or the name of a plain thing.
    """
    stretch = _OVERSAMPLING * np.array([(-width if flip else width) / shape.aspect, height])
    cos, sin = math.cos(math.radians(tilt)), math.sin(math.radians(tilt))
    turn = np.array([[cos, sin], [-sin, cos]])
    points = np.concatenate([part.points for part in shape.parts]) * stretch @ turn
    margin = 2 * _OVERSAMPLING
    points += margin - points.min(axis=0)
    extent = np.ceil((points.max(axis=0) + margin) / _OVERSAMPLING).astype(int) * _OVERSAMPLING

    roles = Image.new("P", (int(extent[0]), int(extent[1])))
    draw = ImageDraw.Draw(roles)
    outline = max(2, round(_OVERSAMPLING * (0.6 + 0.012 * height)))
    start = 0
    for part in shape.parts:
        corners = [(x, y) for x, y in points[start : start + len(part.points)].tolist()]
        start += len(part.points)
        draw.polygon(corners, fill=int(part.role))
        if part.role in _OUTLINED:
            draw.line([*corners, corners[0]], fill=int(Role.OUTLINE), width=outline)
    if pattern != "plain":
        pitch = max(10.0, min(width, height) * rng.uniform(0.14, 0.26)) * _OVERSAMPLING
        index = np.array(roles)
        mask = pattern_mask(pattern, index.shape[0], index.shape[1], pitch, rng)
        index[(index == Role.BODY) & mask] = Role.PATTERN
        roles.frombytes(index.tobytes())
    roles.putpalette(tones(colour, rng).tobytes(), "RGBA")
    return roles.convert("RGBA").reduce(_OVERSAMPLING)


def tones(colour: str, rng: np.random.Generator) -> NDArray[np.uint8]:
    """The (len(Role), 4) RGBA palette of a thing of that colour, or of that plain thing."""
    # White and black take on a hue far sooner than the others lose theirs.
    spread = 4 if colour in ("white", "black") else 14
    body = np.clip(np.array(_COLOURS[colour]) + rng.uniform(-spread, spread, 3), 0, 255)
    white = np.array([255.0, 255.0, 255.0])
    palette = np.zeros((len(Role), 4), dtype=np.uint8)
    palette[1:, 3] = 255
    for role, fixed in _FIXED.items():
        palette[role, :3] = fixed
    palette[Role.SKIN, :3] = _SKINS[rng.integers(len(_SKINS))]
    # A darker tone of black is not visible, so black has its details in lighter tones instead.
    dark = colour == "black"
    palette[Role.BODY, :3] = body
    palette[Role.SHADE, :3] = body + (white - body) * 0.16 if dark else body * 0.78
    palette[Role.LIGHT, :3] = body + (white - body) * (0.26 if dark else 0.40)
    palette[Role.OUTLINE, :3] = body + (white - body) * 0.42 if dark else body * 0.42
    if dark:
        palette[Role.PATTERN, :3] = body + (white - body) * rng.choice([0.22, 0.7])
    elif colour == "white":
        palette[Role.PATTERN, :3] = body * 0.80
    else:
        palette[Role.PATTERN, :3] = body * 0.68 if rng.random() < 0.6 else body + (white - body) * 0.75
    return palette


def pattern_mask(
    pattern: str, height: int, width: int, pitch: float, rng: np.random.Generator
) -> NDArray[np.bool_]:
    """The (height, width) mask of the pattern's second tone, for any pattern but "plain".

    `pitch` is the repeat in pixels. At most half of the mask is set.
    """
    angle = np.pi / 4 * rng.integers(4)
    cos, sin = np.float32(np.cos(angle) / pitch), np.float32(np.sin(angle) / pitch)
    start = rng.random(2).astype(np.float32)
    x = np.arange(width, dtype=np.float32)[None, :]
    y = np.arange(height, dtype=np.float32)[:, None]
    along = _fraction((x * cos + start[0]) + y * sin)
    if pattern == "striped":
        return np.asarray(along < 0.4)
    across = _fraction((y * cos + start[1]) - x * sin)
    if pattern == "dotted":
        return np.asarray((along - 0.5) ** 2 + (across - 0.5) ** 2 < 0.09)
    return np.asarray((along < 0.5) == (across < 0.5))


def _fraction(values: NDArray[np.float32]) -> NDArray[np.float32]:
    # Much faster than the remainder by 1.
    return values - np.floor(values)


def relight(image: Image.Image, rng: np.random.Generator) -> NDArray[np.uint8]:
    """The RGB image as uint8 (height, width, 3), under a random light and through a random camera."""
    if rng.random() < 0.3:
        image = image.filter(ImageFilter.BoxBlur(float(rng.uniform(0.2, 0.8))))
    pixels = np.asarray(image).astype(np.float32)
    height, width = pixels.shape[:2]
    slope_x, slope_y = rng.uniform(-0.14, 0.14, 2)
    gain = (
        rng.uniform(0.82, 1.10)
        + slope_x * np.linspace(-1, 1, width, dtype=np.float32)[None, :]
        + slope_y * np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    )
    tint = rng.uniform(0.94, 1.06, 3)
    contrast = float(rng.uniform(0.85, 1.08))
    pixels *= gain.astype(np.float32)[..., None]
    pixels *= (tint * contrast).astype(np.float32)
    pixels += 118 * (1 - contrast)
    if rng.random() < 0.6:
        noise, start = _noise(), int(rng.integers(_NOISE_SIDE))
        strength = np.float32(rng.uniform(1, 6))
        pixels += strength * np.resize(noise[start : start + pixels.size], pixels.shape)
    return np.clip(pixels, 0, 255, out=pixels).astype(np.uint8)


@cache
def _noise() -> NDArray[np.float32]:
    return np.random.default_rng(0).normal(0, 1, (_NOISE_SIDE * _NOISE_SIDE * 3)).astype(np.float32)
