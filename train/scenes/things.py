"""The table of things: how each is drawn and where it belongs; and the shapes of creatures and vehicles."""

from dataclasses import dataclass
from enum import Enum
from typing import Final

from . import objects
from .drawing import Part, Role, Shape, arc, bar, box, ellipse, poly, shape


class Place(Enum):
    """Where a thing is found."""

    GROUND = "ground"
    WATER = "water"
    SKY = "sky"


@dataclass(frozen=True)
class Thing:
    """The variants of a shape, where the thing belongs, and how far it may tilt, in degrees."""

    shapes: tuple[Shape, ...]
    place: Place = Place.GROUND
    tilt: float = 7.0


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


SHOWN_AS: Final[dict[str, Thing]] = {
    "sun": Thing(objects.SUN, Place.SKY, 180.0),
    "moon": Thing(objects.MOON, Place.SKY, 20.0),
    "cloud": Thing(objects.CLOUD, Place.SKY),
    "tree": Thing(objects.TREE),
    "house": Thing(objects.HOUSE, tilt=4.0),
    "car": Thing(CAR),
    "bus": Thing(BUS),
    "boat": Thing(BOAT, Place.WATER),
    "person": Thing(PERSON),
    "dog": Thing(DOG),
    "bird": Thing(BIRD, Place.SKY, 18.0),
    "fish": Thing(FISH, Place.WATER, 18.0),
    "ball": Thing(objects.BALL, tilt=180.0),
    "fence": Thing(objects.FENCE, tilt=4.0),
    "lamp": Thing(objects.LAMP),
    "chair": Thing(objects.CHAIR),
    "table": Thing(objects.TABLE),
    "flower": Thing(objects.FLOWER, tilt=14.0),
    "hat": Thing(objects.HAT, tilt=12.0),
    "cup": Thing(objects.CUP),
    "kite": Thing(objects.KITE, Place.SKY, 30.0),
    "umbrella": Thing(objects.UMBRELLA, tilt=18.0),
}
