"""The shapes of household objects, houses, plants and what is in the sky."""

import math

from .drawing import Part, Role, Shape, arc, bar, box, ellipse, poly, shape

BALL: tuple[Shape, ...] = (
    shape(
        1.0,
        ellipse(Role.BODY, 0.5, 0.5, 0.5),
        arc(Role.OUTLINE, -0.05, 0.5, 0.50, 0.03, -55, 55),
        arc(Role.OUTLINE, 1.05, 0.5, 0.50, 0.03, 125, 235),
        bar(Role.OUTLINE, 0.02, 0.5, 0.98, 0.5, 0.03),
        ellipse(Role.LIGHT, 0.34, 0.24, 0.12, 0.07, -35),
    ),
    shape(
        1.0,
        ellipse(Role.BODY, 0.5, 0.5, 0.5),
        arc(Role.SHADE, 0.5, 0.5, 0.44, 0.12, -20, 110),
        (
            poly(Role.PALE, *((0.5 + dx, 0.5 + dy) for dx, dy in corners))
            for corners in (
                ((0.0, -0.16), (0.15, -0.05), (0.09, 0.13), (-0.09, 0.13), (-0.15, -0.05)),
                ((-0.10, -0.48), (0.10, -0.48), (0.0, -0.36)),
                ((0.47, -0.16), (0.47, 0.06), (0.36, -0.10)),
                ((-0.47, -0.16), (-0.47, 0.06), (-0.36, -0.10)),
            )
        ),
    ),
)

LAMP: tuple[Shape, ...] = (
    shape(
        0.62,
        box(Role.METAL, 0.27, 0.42, 0.35, 0.92),
        ellipse(Role.GOLD, 0.31, 0.45, 0.20, 0.06),
        poly(Role.BODY, (0.18, 0.0), (0.44, 0.0), (0.62, 0.44), (0.0, 0.44)),
        poly(Role.LIGHT, (0.20, 0.03), (0.26, 0.03), (0.18, 0.41), (0.07, 0.41)),
        poly(Role.SHADE, (0.02, 0.38), (0.60, 0.38), (0.62, 0.44), (0.0, 0.44)),
        ellipse(Role.BODY, 0.31, 0.72, 0.11, 0.15),
        poly(Role.BODY, (0.14, 0.90), (0.48, 0.90), (0.54, 1.0), (0.08, 1.0)),
    ),
)

CHAIR: tuple[Shape, ...] = (
    shape(
        0.66,
        box(Role.SHADE, 0.16, 0.60, 0.24, 0.92),
        box(Role.SHADE, 0.48, 0.60, 0.55, 0.92),
        box(Role.BODY, 0.02, 0.0, 0.12, 1.0),
        box(Role.BODY, 0.06, 0.04, 0.52, 0.15),
        box(Role.BODY, 0.06, 0.22, 0.52, 0.33),
        box(Role.BODY, 0.06, 0.40, 0.52, 0.48),
        box(Role.BODY, 0.46, 0.0, 0.55, 0.55),
        poly(Role.BODY, (0.02, 0.54), (0.56, 0.54), (0.66, 0.66), (0.02, 0.66)),
        poly(Role.LIGHT, (0.06, 0.54), (0.55, 0.54), (0.62, 0.61), (0.06, 0.61)),
        box(Role.BODY, 0.57, 0.65, 0.66, 1.0),
    ),
    shape(
        1.05,
        box(Role.DARK, 0.10, 0.88, 0.20, 1.0),
        box(Role.DARK, 0.85, 0.88, 0.95, 1.0),
        poly(Role.BODY, (0.14, 0.70), (0.14, 0.10), (0.24, 0.0), (0.81, 0.0), (0.91, 0.10), (0.91, 0.70)),
        bar(Role.SHADE, 0.525, 0.03, 0.525, 0.55, 0.03),
        box(Role.LIGHT, 0.18, 0.54, 0.87, 0.70),
        box(Role.SHADE, 0.14, 0.70, 0.91, 0.90),
        poly(Role.BODY, (0.0, 0.44), (0.06, 0.38), (0.18, 0.40), (0.22, 0.48), (0.22, 0.90), (0.0, 0.90)),
        poly(Role.BODY, (0.83, 0.48), (0.87, 0.40), (0.99, 0.38), (1.05, 0.44), (1.05, 0.90), (0.83, 0.90)),
    ),
)

TABLE: tuple[Shape, ...] = (
    shape(
        1.6,
        box(Role.SHADE, 0.32, 0.30, 0.42, 0.86),
        box(Role.SHADE, 1.18, 0.30, 1.28, 0.86),
        box(Role.BODY, 0.06, 0.24, 0.20, 1.0),
        box(Role.BODY, 1.40, 0.24, 1.54, 1.0),
        box(Role.SHADE, 0.06, 0.26, 1.54, 0.42),
        ellipse(Role.METAL, 0.80, 0.34, 0.04),
        poly(Role.BODY, (0.24, 0.0), (1.36, 0.0), (1.6, 0.20), (1.6, 0.28), (0.0, 0.28), (0.0, 0.20)),
        poly(Role.LIGHT, (0.28, 0.03), (1.32, 0.03), (1.50, 0.18), (0.10, 0.18)),
    ),
    shape(
        1.3,
        poly(Role.SHADE, (0.58, 0.24), (0.72, 0.24), (0.74, 0.88), (0.56, 0.88)),
        poly(Role.BODY, (0.56, 0.82), (0.74, 0.82), (1.0, 1.0), (0.30, 1.0)),
        ellipse(Role.BODY, 0.65, 0.20, 0.65, 0.17),
        ellipse(Role.LIGHT, 0.65, 0.15, 0.60, 0.12),
        ellipse(Role.BODY, 0.65, 0.15, 0.48, 0.08),
    ),
)

HAT: tuple[Shape, ...] = (
    shape(
        1.5,
        ellipse(Role.SHADE, 0.75, 0.80, 0.75, 0.20),
        ellipse(Role.BODY, 0.75, 0.76, 0.75, 0.18),
        poly(
            Role.BODY,
            (0.34, 0.76), (0.38, 0.22), (0.48, 0.04), (0.64, 0.08), (0.75, 0.12), (0.86, 0.08), (1.02, 0.04),
            (1.12, 0.22), (1.16, 0.76), (0.96, 0.82), (0.54, 0.82),
        ),
        poly(
            Role.DARK,
            (0.35, 0.58), (1.15, 0.58), (1.16, 0.76), (0.96, 0.82), (0.54, 0.82), (0.34, 0.76),
        ),
        box(Role.GOLD, 0.88, 0.58, 1.0, 0.80),
    ),
    shape(
        1.25,
        ellipse(Role.BODY, 0.625, 0.88, 0.625, 0.12),
        box(Role.BODY, 0.26, 0.04, 0.99, 0.88),
        ellipse(Role.LIGHT, 0.625, 0.06, 0.365, 0.06),
        box(Role.PALE, 0.26, 0.62, 0.99, 0.78),
        bar(Role.SHADE, 0.90, 0.12, 0.90, 0.60, 0.08),
    ),
)  # fmt: skip

CUP: tuple[Shape, ...] = (
    shape(
        1.2,
        arc(Role.BODY, 0.86, 0.46, 0.24, 0.12, -100, 100),
        poly(Role.BODY, (0.0, 0.08), (0.86, 0.08), (0.80, 0.86), (0.68, 1.0), (0.18, 1.0), (0.06, 0.86)),
        ellipse(Role.LIGHT, 0.43, 0.10, 0.43, 0.10),
        ellipse(Role.WOOD, 0.43, 0.11, 0.36, 0.07),
        poly(Role.SHADE, (0.66, 0.24), (0.78, 0.22), (0.73, 0.84), (0.62, 0.92)),
    ),
)

KITE: tuple[Shape, ...] = (
    shape(
        0.78,
        bar(Role.DARK, 0.39, 0.68, 0.46, 0.80, 0.02),
        bar(Role.DARK, 0.46, 0.80, 0.36, 0.90, 0.02),
        bar(Role.DARK, 0.36, 0.90, 0.44, 1.0, 0.02),
        poly(Role.BODY, (0.39, 0.0), (0.78, 0.27), (0.39, 0.72), (0.0, 0.27)),
        poly(Role.SHADE, (0.39, 0.0), (0.78, 0.27), (0.39, 0.27)),
        poly(Role.SHADE, (0.39, 0.27), (0.39, 0.72), (0.0, 0.27)),
        bar(Role.DARK, 0.39, 0.0, 0.39, 0.72, 0.022),
        bar(Role.DARK, 0.0, 0.27, 0.78, 0.27, 0.022),
        (
            poly(Role.BODY, (x - 0.10, y - 0.05), (x, y), (x - 0.10, y + 0.05),
                 (x + 0.10, y + 0.05), (x, y), (x + 0.10, y - 0.05))
            for x, y in ((0.45, 0.80), (0.37, 0.92))
        ),
    ),
)  # fmt: skip

UMBRELLA: tuple[Shape, ...] = (
    shape(
        1.15,
        bar(Role.WOOD, 0.575, 0.0, 0.575, 0.90, 0.045),
        arc(Role.WOOD, 0.505, 0.89, 0.07, 0.045, 0, 180),
        poly(
            Role.BODY,
            (0.0, 0.52), (0.03, 0.38), (0.12, 0.24), (0.26, 0.12), (0.44, 0.06), (0.575, 0.04), (0.71, 0.06),
            (0.89, 0.12), (1.03, 0.24), (1.12, 0.38), (1.15, 0.52), (1.04, 0.46), (0.93, 0.46), (0.83, 0.52),
            (0.70, 0.46), (0.575, 0.46), (0.45, 0.46), (0.32, 0.52), (0.22, 0.46), (0.11, 0.46),
        ),
        poly(Role.SHADE, (0.575, 0.04), (0.38, 0.20), (0.32, 0.52), (0.45, 0.46), (0.70, 0.46), (0.83, 0.52),
             (0.77, 0.20)),
        poly(Role.BODY, (0.575, 0.04), (0.48, 0.22), (0.45, 0.46), (0.70, 0.46), (0.67, 0.22)),
    ),
)  # fmt: skip


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
