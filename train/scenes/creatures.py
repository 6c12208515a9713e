"""The shapes of people, dogs, birds and fish."""

from .shapes import Role, Shape, arc, bar, box, ellipse, poly, shape

PERSON: tuple[Shape, ...] = (
    shape(
        0.50,
        bar(Role.BODY, 0.14, 0.30, 0.05, 0.54, 0.09),
        bar(Role.BODY, 0.36, 0.30, 0.45, 0.54, 0.09),
        ellipse(Role.SKIN, 0.05, 0.57, 0.045),
        ellipse(Role.SKIN, 0.45, 0.57, 0.045),
        bar(Role.SHADE, 0.20, 0.56, 0.16, 0.96, 0.12),
        bar(Role.SHADE, 0.30, 0.56, 0.34, 0.96, 0.12),
        ellipse(Role.DARK, 0.14, 0.97, 0.09, 0.035),
        ellipse(Role.DARK, 0.36, 0.97, 0.09, 0.035),
        box(Role.SKIN, 0.21, 0.18, 0.29, 0.28),
        poly(Role.BODY, (0.10, 0.26), (0.40, 0.26), (0.38, 0.62), (0.12, 0.62)),
        ellipse(Role.DARK, 0.25, 0.10, 0.11, 0.10),
        ellipse(Role.SKIN, 0.25, 0.13, 0.09, 0.10),
        ellipse(Role.DARK, 0.215, 0.12, 0.013),
        ellipse(Role.DARK, 0.285, 0.12, 0.013),
        arc(Role.DARK, 0.25, 0.15, 0.035, 0.014, 30, 150),
    ),
    shape(
        0.56,
        bar(Role.BODY, 0.17, 0.32, 0.06, 0.10, 0.09),
        bar(Role.BODY, 0.39, 0.32, 0.52, 0.52, 0.09),
        ellipse(Role.SKIN, 0.05, 0.07, 0.045),
        ellipse(Role.SKIN, 0.53, 0.55, 0.045),
        bar(Role.SKIN, 0.22, 0.66, 0.22, 0.96, 0.08),
        bar(Role.SKIN, 0.36, 0.66, 0.36, 0.96, 0.08),
        ellipse(Role.DARK, 0.20, 0.97, 0.08, 0.03),
        ellipse(Role.DARK, 0.38, 0.97, 0.08, 0.03),
        ellipse(Role.DARK, 0.28, 0.16, 0.13, 0.15),
        poly(Role.BODY, (0.16, 0.28), (0.40, 0.28), (0.37, 0.46), (0.50, 0.76), (0.06, 0.76), (0.19, 0.46)),
        poly(Role.SHADE, (0.09, 0.69), (0.47, 0.69), (0.50, 0.76), (0.06, 0.76)),
        ellipse(Role.SKIN, 0.28, 0.14, 0.09, 0.11),
        ellipse(Role.DARK, 0.245, 0.13, 0.013),
        ellipse(Role.DARK, 0.315, 0.13, 0.013),
        arc(Role.DARK, 0.28, 0.16, 0.035, 0.014, 30, 150),
    ),
)

DOG: tuple[Shape, ...] = (
    shape(
        1.35,
        bar(Role.BODY, 0.14, 0.42, 0.03, 0.10, 0.08),
        box(Role.SHADE, 0.28, 0.60, 0.40, 1.0),
        box(Role.SHADE, 0.80, 0.60, 0.92, 1.0),
        poly(
            Role.BODY,
            (0.10, 0.42), (0.22, 0.36), (0.78, 0.36), (0.84, 0.14), (0.95, 0.06), (1.10, 0.08), (1.20, 0.22),
            (1.34, 0.26), (1.34, 0.38), (1.14, 0.44), (1.02, 0.68), (1.02, 1.0), (0.90, 1.0), (0.86, 0.72),
            (0.28, 0.70), (0.22, 1.0), (0.10, 1.0),
        ),
        poly(Role.SHADE, (0.86, 0.10), (0.98, 0.10), (0.98, 0.40), (0.90, 0.46), (0.82, 0.38)),
        ellipse(Role.DARK, 1.33, 0.27, 0.045),
        ellipse(Role.PALE, 1.09, 0.20, 0.045),
        ellipse(Role.DARK, 1.10, 0.20, 0.025),
        bar(Role.GOLD, 0.84, 0.50, 1.06, 0.54, 0.06),
    ),
)  # fmt: skip

BIRD: tuple[Shape, ...] = (
    shape(
        1.55,
        poly(Role.SHADE, (0.80, 0.56), (0.60, 0.52), (0.86, 0.06), (0.98, 0.0), (1.04, 0.10), (0.98, 0.55)),
        poly(Role.BODY, (0.0, 0.50), (0.12, 0.72), (0.40, 0.74), (0.44, 0.60)),
        ellipse(Role.BODY, 0.78, 0.70, 0.46, 0.20, -8),
        ellipse(Role.BODY, 1.22, 0.54, 0.17),
        poly(Role.GOLD, (1.36, 0.48), (1.55, 0.56), (1.36, 0.63)),
        poly(
            Role.BODY, (0.92, 0.64), (0.50, 0.66), (0.30, 0.20), (0.34, 0.06), (0.48, 0.10), (0.74, 0.30)
        ),
        bar(Role.SHADE, 0.40, 0.20, 0.60, 0.62, 0.04),
        bar(Role.SHADE, 0.52, 0.20, 0.74, 0.60, 0.04),
        ellipse(Role.PALE, 1.26, 0.50, 0.05),
        ellipse(Role.DARK, 1.27, 0.50, 0.03),
        bar(Role.GOLD, 0.70, 0.88, 0.58, 1.0, 0.04),
        bar(Role.GOLD, 0.82, 0.88, 0.70, 1.0, 0.04),
    ),
)  # fmt: skip

FISH: tuple[Shape, ...] = (
    shape(
        1.75,
        poly(Role.SHADE, (0.70, 0.22), (0.86, 0.0), (1.22, 0.04), (1.22, 0.22)),
        poly(Role.SHADE, (0.84, 0.80), (0.92, 1.0), (1.12, 0.98), (1.12, 0.80)),
        poly(Role.BODY, (0.48, 0.50), (0.0, 0.10), (0.12, 0.50), (0.0, 0.92)),
        ellipse(Role.BODY, 1.08, 0.51, 0.67, 0.36),
        (arc(Role.SHADE, 0.58 + 0.24 * k, 0.51, 0.16, 0.035, -70, 70) for k in range(3)),
        arc(Role.OUTLINE, 1.26, 0.51, 0.24, 0.04, -65, 65),
        ellipse(Role.PALE, 1.57, 0.42, 0.075),
        ellipse(Role.DARK, 1.59, 0.42, 0.04),
        bar(Role.DARK, 1.62, 0.62, 1.73, 0.58, 0.03),
    ),
)
