"""Procedural scenes with captions and pixel labels: seeded, endless, drawn with numpy and Pillow alone."""

from .names import COLOURS, HELD_OUT, INDEX, PLAIN_THINGS, SEEN, STUFF, THINGS, VOCABULARY, longer_vocabulary
from .scene import Scene, Split, make_scene

__all__ = [
    "COLOURS",
    "HELD_OUT",
    "INDEX",
    "PLAIN_THINGS",
    "SEEN",
    "STUFF",
    "THINGS",
    "VOCABULARY",
    "Scene",
    "Split",
    "longer_vocabulary",
    "make_scene",
]
