"""The shapes of houses, fences, plants and what is in the sky."""

import math

from .shapes import Part, Role, Shape, arc, bar, box, ellipse, poly, shape


def _window(left: float, top: float, size: float) -> tuple[Part, ...]:
    middle = left + size / 2, top + size / 2
    return (
        box(Role.PALE, left - 0.02, top - 0.02, left + size + 0.02, top + size + 0.02),
        box(Role.GLASS, left, top, left + size, top + size),
        bar(Role.PALE, middle[0], top, middle[0], top + size, 0.02),
        bar(Role.PALE, left, middle[1], left + size, middle[1], 0.02),
    )


def _picket(left: float) -> Part:
    return poly(
        Role.BODY, (left, 1.0), (left, 0.14), (left + 0.12, 0.0), (left + 0.24, 0.14), (left + 0.24, 1.0)
    )


def _around(role: Role, count: int, x: float, y: float, distance: float, rx: float, ry: float) -> list[Part]:
    turns = [360 * k / count for k in range(count)]
    return [
        ellipse(
            role,
            x + distance * math.cos(math.radians(turn)),
            y + distance * math.sin(math.radians(turn)),
            rx,
            ry,
            turn,
        )
        for turn in turns
    ]


HOUSE: tuple[Shape, ...] = (
    shape(
        1.1,
        box(Role.SHADE, 0.78, 0.06, 0.90, 0.40),
        box(Role.BODY, 0.08, 0.40, 1.02, 1.0),
        poly(Role.SHADE, (0.55, 0.0), (1.1, 0.44), (0.0, 0.44)),
        ellipse(Role.GLASS, 0.55, 0.27, 0.07),
        box(Role.WOOD, 0.45, 0.64, 0.65, 1.0),
        ellipse(Role.GOLD, 0.61, 0.83, 0.02),
        _window(0.17, 0.54, 0.19),
        _window(0.74, 0.54, 0.19),
    ),
    shape(
        0.9,
        box(Role.BODY, 0.06, 0.26, 0.84, 1.0),
        poly(Role.SHADE, (0.14, 0.0), (0.76, 0.0), (0.9, 0.30), (0.0, 0.30)),
        box(Role.WOOD, 0.36, 0.74, 0.54, 1.0),
        (part for x in (0.14, 0.37, 0.60) for part in _window(x, 0.38, 0.16)),
        _window(0.14, 0.70, 0.16),
        _window(0.60, 0.70, 0.16),
    ),
)

FENCE: tuple[Shape, ...] = (
    shape(
        1.76,
        box(Role.SHADE, 0.0, 0.26, 1.76, 0.40),
        box(Role.SHADE, 0.0, 0.66, 1.76, 0.80),
        (_picket(0.02 + 0.296 * k) for k in range(6)),
    ),
)

FLOWER: tuple[Shape, ...] = (
    shape(
        0.66,
        bar(Role.LEAF, 0.33, 0.36, 0.33, 1.0, 0.06),
        ellipse(Role.LEAF, 0.46, 0.80, 0.15, 0.06, -35),
        ellipse(Role.LEAF, 0.20, 0.86, 0.15, 0.06, 35),
        _around(Role.BODY, 6, 0.33, 0.33, 0.20, 0.13, 0.105),
        ellipse(Role.GOLD, 0.33, 0.33, 0.10),
    ),
    shape(
        0.60,
        bar(Role.LEAF, 0.30, 0.40, 0.30, 1.0, 0.06),
        poly(Role.LEAF, (0.30, 1.0), (0.06, 0.52), (0.24, 0.76)),
        poly(Role.LEAF, (0.30, 1.0), (0.54, 0.52), (0.36, 0.76)),
        poly(
            Role.BODY,
            (0.04, 0.04), (0.18, 0.16), (0.30, 0.0), (0.42, 0.16), (0.56, 0.04), (0.56, 0.30), (0.44, 0.46),
            (0.16, 0.46), (0.04, 0.30),
        ),
        poly(Role.SHADE, (0.30, 0.02), (0.40, 0.22), (0.36, 0.46), (0.24, 0.46), (0.20, 0.22)),
    ),
)  # fmt: skip

TREE: tuple[Shape, ...] = (
    shape(
        0.86,
        poly(Role.WOOD, (0.36, 0.5), (0.50, 0.5), (0.54, 1.0), (0.32, 1.0)),
        ellipse(Role.BODY, 0.22, 0.44, 0.22),
        ellipse(Role.BODY, 0.64, 0.44, 0.22),
        ellipse(Role.BODY, 0.43, 0.26, 0.28, 0.26),
        ellipse(Role.SHADE, 0.46, 0.50, 0.24, 0.14),
        ellipse(Role.LIGHT, 0.34, 0.16, 0.05, 0.035),
        ellipse(Role.LIGHT, 0.50, 0.26, 0.05, 0.035),
        ellipse(Role.LIGHT, 0.18, 0.38, 0.05, 0.035),
        ellipse(Role.LIGHT, 0.66, 0.38, 0.05, 0.035),
    ),
    shape(
        0.7,
        box(Role.WOOD, 0.30, 0.80, 0.40, 1.0),
        poly(Role.SHADE, (0.35, 0.40), (0.70, 0.86), (0.0, 0.86)),
        poly(Role.BODY, (0.35, 0.20), (0.64, 0.62), (0.06, 0.62)),
        poly(Role.LIGHT, (0.35, 0.0), (0.56, 0.36), (0.14, 0.36)),
    ),
)  # fmt: skip

SUN: tuple[Shape, ...] = (
    shape(
        1.0,
        (
            poly(
                Role.SHADE,
                *(
                    (0.5 + r * math.cos(math.radians(a)), 0.5 + r * math.sin(math.radians(a)))
                    for a, r in ((36 * k - 13, 0.3), (36 * k, 0.5), (36 * k + 13, 0.3))
                ),
            )
            for k in range(10)
        ),
        ellipse(Role.BODY, 0.5, 0.5, 0.33),
        ellipse(Role.LIGHT, 0.5, 0.5, 0.22),
    ),
)

MOON: tuple[Shape, ...] = (
    shape(
        0.72,
        poly(
            Role.BODY,
            *(
                (0.5 + 0.5 * math.cos(math.radians(a)), 0.5 + 0.5 * math.sin(math.radians(a)))
                for a in range(65, 296, 10)
            ),
            *(
                (0.72 + 0.46 * math.cos(math.radians(a)), 0.5 + 0.46 * math.sin(math.radians(a)))
                for a in range(255, 104, -10)
            ),
        ),
        ellipse(Role.SHADE, 0.14, 0.42, 0.05),
        ellipse(Role.SHADE, 0.18, 0.64, 0.04),
        ellipse(Role.SHADE, 0.28, 0.20, 0.035),
    ),
)

CLOUD: tuple[Shape, ...] = (
    shape(
        1.9,
        ellipse(Role.SHADE, 0.95, 0.76, 0.84, 0.24),
        ellipse(Role.LIGHT, 0.36, 0.64, 0.36, 0.30),
        ellipse(Role.LIGHT, 1.52, 0.62, 0.38, 0.30),
        ellipse(Role.LIGHT, 0.76, 0.42, 0.42),
        ellipse(Role.LIGHT, 1.20, 0.50, 0.34),
        ellipse(Role.LIGHT, 0.95, 0.66, 0.60, 0.22),
        arc(Role.SHADE, 0.72, 0.46, 0.26, 0.05, 150, 290),
        arc(Role.SHADE, 1.46, 0.62, 0.22, 0.05, 200, 330),
    ),
)
