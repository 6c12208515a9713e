"""The shapes of cars, buses and boats."""

from .shapes import Part, Role, Shape, bar, box, ellipse, poly, shape


def _wheel(x: float, y: float, radius: float) -> tuple[Part, Part]:
    return ellipse(Role.DARK, x, y, radius), ellipse(Role.METAL, x, y, radius * 0.5)


CAR: tuple[Shape, ...] = (
    shape(
        2.0,
        poly(
            Role.BODY,
            (0.0, 0.52), (0.06, 0.42), (0.45, 0.38), (0.72, 0.03), (1.36, 0.03), (1.65, 0.38), (1.94, 0.46),
            (2.0, 0.58), (2.0, 0.82), (0.0, 0.82),
        ),
        poly(Role.GLASS, (0.57, 0.38), (0.79, 0.11), (1.01, 0.11), (1.01, 0.38)),
        poly(Role.GLASS, (1.09, 0.38), (1.09, 0.11), (1.32, 0.11), (1.53, 0.38)),
        box(Role.SHADE, 0.0, 0.70, 2.0, 0.82),
        bar(Role.OUTLINE, 1.05, 0.40, 1.05, 0.70, 0.03),
        box(Role.DARK, 1.12, 0.47, 1.24, 0.51),
        ellipse(Role.GOLD, 1.93, 0.57, 0.06),
        _wheel(0.44, 0.80, 0.20),
        _wheel(1.56, 0.80, 0.20),
    ),
    shape(
        1.7,
        poly(
            Role.BODY,
            (0.0, 0.80), (0.0, 0.30), (0.10, 0.04), (1.05, 0.04), (1.34, 0.40), (1.62, 0.46), (1.7, 0.58),
            (1.7, 0.80),
        ),
        poly(Role.GLASS, (0.12, 0.38), (0.19, 0.12), (0.52, 0.12), (0.52, 0.38)),
        poly(Role.GLASS, (0.60, 0.38), (0.60, 0.12), (1.0, 0.12), (1.20, 0.38)),
        box(Role.SHADE, 0.0, 0.69, 1.7, 0.80),
        bar(Role.OUTLINE, 0.56, 0.12, 0.56, 0.69, 0.03),
        box(Role.DARK, 0.64, 0.46, 0.76, 0.50),
        ellipse(Role.GOLD, 1.62, 0.58, 0.06),
        _wheel(0.38, 0.79, 0.20),
        _wheel(1.30, 0.79, 0.20),
    ),
)  # fmt: skip

BUS: tuple[Shape, ...] = (
    shape(
        1.85,
        poly(
            Role.BODY, (0.0, 0.06), (0.06, 0.0), (1.76, 0.0), (1.85, 0.10), (1.85, 0.87), (0.0, 0.87)
        ),
        (box(Role.GLASS, 0.08 + 0.32 * k, 0.12, 0.34 + 0.32 * k, 0.40) for k in range(4)),
        box(Role.GLASS, 1.42, 0.12, 1.60, 0.80),
        box(Role.GLASS, 1.68, 0.12, 1.85, 0.46),
        box(Role.SHADE, 0.0, 0.76, 1.38, 0.87),
        box(Role.LIGHT, 0.0, 0.52, 1.38, 0.58),
        ellipse(Role.GOLD, 1.79, 0.66, 0.05),
        _wheel(0.38, 0.86, 0.14),
        _wheel(1.22, 0.86, 0.14),
    ),
)  # fmt: skip

BOAT: tuple[Shape, ...] = (
    shape(
        1.2,
        bar(Role.WOOD, 0.56, 0.0, 0.56, 0.76, 0.04),
        poly(Role.BODY, (0.58, 0.03), (0.58, 0.66), (1.12, 0.66)),
        poly(Role.PALE, (0.54, 0.12), (0.54, 0.66), (0.12, 0.66)),
        poly(Role.BODY, (0.0, 0.72), (1.2, 0.72), (1.0, 1.0), (0.2, 1.0)),
        poly(Role.SHADE, (0.1, 0.87), (1.1, 0.87), (1.0, 1.0), (0.2, 1.0)),
        poly(Role.PALE, (0.0, 0.72), (1.2, 0.72), (1.17, 0.77), (0.03, 0.77)),
    ),
    shape(
        1.8,
        box(Role.SHADE, 0.95, 0.0, 1.17, 0.30),
        box(Role.DARK, 0.95, 0.06, 1.17, 0.12),
        box(Role.PALE, 0.45, 0.27, 1.40, 0.56),
        (box(Role.GLASS, 0.53 + 0.29 * k, 0.34, 0.72 + 0.29 * k, 0.48) for k in range(3)),
        poly(Role.BODY, (0.0, 0.46), (0.3, 0.55), (1.8, 0.55), (1.55, 1.0), (0.32, 1.0)),
        poly(Role.SHADE, (0.26, 0.86), (1.63, 0.86), (1.55, 1.0), (0.32, 1.0)),
        (ellipse(Role.GLASS, 0.6 + 0.3 * k, 0.70, 0.06) for k in range(3)),
    ),
)
