"""The colours of the things: a jittered RGB for each colour name, and the tones of a thing's parts."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from .shapes import Role

RGB = tuple[int, int, int]

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


def tones(colour: str, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Return the (len(Role), 4) RGBA palette of a thing of that colour, or of that plain thing."""
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
