"""One thing, drawn on its own: a picture with transparency."""

import math

import numpy as np
from PIL import Image, ImageDraw

from .palette import tones
from .patterns import pattern_mask
from .shapes import Role, Shape

# Drawn twice as large and reduced, the edges are smooth.
_OVERSAMPLING = 2
_OUTLINED = frozenset({Role.BODY, Role.PALE, Role.SKIN})


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
    """Return an RGBA picture, cut to the bounds of the thing.

    ``width`` and ``height`` are the thing's, in pixels, before it is tilted by ``tilt`` degrees; ``colour``
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
