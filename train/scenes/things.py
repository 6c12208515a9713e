"""The table of things: how each is drawn and where it belongs."""

from dataclasses import dataclass
from enum import Enum
from typing import Final

from . import creatures, objects, outdoors, vehicles
from .shapes import Shape


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


TABLE: Final[dict[str, Thing]] = {
    "sun": Thing(outdoors.SUN, Place.SKY, 180.0),
    "moon": Thing(outdoors.MOON, Place.SKY, 20.0),
    "cloud": Thing(outdoors.CLOUD, Place.SKY),
    "tree": Thing(outdoors.TREE),
    "house": Thing(outdoors.HOUSE, tilt=4.0),
    "car": Thing(vehicles.CAR),
    "bus": Thing(vehicles.BUS),
    "boat": Thing(vehicles.BOAT, Place.WATER),
    "person": Thing(creatures.PERSON),
    "dog": Thing(creatures.DOG),
    "bird": Thing(creatures.BIRD, Place.SKY, 18.0),
    "fish": Thing(creatures.FISH, Place.WATER, 18.0),
    "ball": Thing(objects.BALL, tilt=180.0),
    "fence": Thing(outdoors.FENCE, tilt=4.0),
    "lamp": Thing(objects.LAMP),
    "chair": Thing(objects.CHAIR),
    "table": Thing(objects.TABLE),
    "flower": Thing(outdoors.FLOWER, tilt=14.0),
    "hat": Thing(objects.HAT, tilt=12.0),
    "cup": Thing(objects.CUP),
    "kite": Thing(objects.KITE, Place.SKY, 30.0),
    "umbrella": Thing(objects.UMBRELLA, tilt=18.0),
}
