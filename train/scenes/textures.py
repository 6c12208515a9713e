"""Tiles of textured stuff, made once a process and cut, flipped and scaled for each scene."""

from collections.abc import Callable
from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from .names import STUFF

TILE: Final = 384
VARIANTS: Final = 3

Pixels = NDArray[np.float32]
_Y: Final[Pixels] = np.mgrid[:TILE, :TILE][0].astype(np.float32)
_X: Final[Pixels] = _Y.T


def _smooth(rng: np.random.Generator, across: int, down: int) -> Pixels:
    """Smooth noise between -1 and 1, (TILE, TILE, 1), with so many cells across and down."""
    cells = Image.fromarray(rng.uniform(-1, 1, (down, across)).astype(np.float32))
    return np.asarray(cells.resize((TILE, TILE), Image.Resampling.BICUBIC))[..., None]


def _speckle(rng: np.random.Generator, strength: float) -> Pixels:
    return rng.normal(0, strength, (TILE, TILE, 1)).astype(np.float32)


def _flat(rng: np.random.Generator, red: int, green: int, blue: int, jitter: float = 10) -> Pixels:
    colour = np.array([red, green, blue]) + rng.uniform(-jitter, jitter, 3)
    return np.broadcast_to(colour.astype(np.float32), (TILE, TILE, 3)).copy()


def _mark(pixels: Pixels, mask: NDArray[np.bool_], change: float) -> None:
    pixels[mask] += change


def _strokes(
    pixels: Pixels, rng: np.random.Generator, count: int, length: float, lean: float, spread: float
) -> Pixels:
    """Draw upright strokes in tones around those of the pixels; `lean` and `length` in pixels."""
    tile = _to_image(pixels)
    draw = ImageDraw.Draw(tile)
    base = pixels.mean(axis=(0, 1))
    for x, y, dx, tone in zip(
        rng.uniform(0, TILE, count),
        rng.uniform(-length, TILE, count),
        rng.uniform(-lean, lean, count),
        rng.uniform(-spread, spread, count),
        strict=True,
    ):
        fill = tuple(int(value) for value in np.clip(base + tone, 0, 255))
        draw.line([(x, y + length), (x + dx, y)], fill=fill, width=2)
    return np.asarray(tile).astype(np.float32)


def _to_image(pixels: Pixels) -> Image.Image:
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def _sky(rng: np.random.Generator) -> Pixels:
    pixels = _flat(rng, 128, 184, 240)
    return pixels + _Y[..., None] * 0.06 + 16 * np.maximum(_smooth(rng, 4, 14), 0)


def _grass(rng: np.random.Generator) -> Pixels:
    return _strokes(_flat(rng, 104, 164, 52), rng, 5000, 14, 5, 34)


def _sand(rng: np.random.Generator) -> Pixels:
    ripple = np.sin(_Y / 6 + 3 * _smooth(rng, 5, 5)[..., 0])[..., None]
    return _flat(rng, 226, 200, 144) + 9 * ripple + _speckle(rng, 7)


def _water(rng: np.random.Generator) -> Pixels:
    pixels = _flat(rng, 34, 118, 150)
    wave = np.sin(_Y / 5 + 2.2 * np.sin(_X / 13 + 2 * _smooth(rng, 6, 6)[..., 0]))
    _mark(pixels, wave > 0.82, 62)
    _mark(pixels, wave < -0.7, -14)
    return pixels + 10 * _smooth(rng, 8, 16)


def _brick_wall(rng: np.random.Generator) -> Pixels:
    row = (_Y // 20).astype(int)
    shifted = _X + 20 * (row % 2)
    column = (shifted // 40).astype(int)
    tones = rng.uniform(-24, 24, (row.max() + 1, column.max() + 1))
    pixels = _flat(rng, 168, 78, 58) + tones[row, column][..., None].astype(np.float32)
    pixels[(_Y % 20 < 3) | (shifted % 40 < 3)] = (206, 196, 184)
    return pixels + _speckle(rng, 6)


def _road(rng: np.random.Generator) -> Pixels:
    pixels = _flat(rng, 92, 92, 96) + _speckle(rng, 12)
    pixels[(_Y % 110 < 8) & (_X % 74 < 46)] = (236, 232, 214)
    return pixels


def _snow(rng: np.random.Generator) -> Pixels:
    shade = np.maximum(_smooth(rng, 7, 10), 0)
    pixels = _flat(rng, 240, 244, 250, 4) - shade * np.array([34, 24, 8], dtype=np.float32)
    _mark(pixels, rng.random((TILE, TILE)) < 0.01, -30)
    return pixels


def _wooden_floor(rng: np.random.Generator) -> Pixels:
    row = (_Y // 30).astype(int)
    shifted = _X + rng.uniform(0, 160, row.max() + 1)[row]
    tones = rng.uniform(-20, 20, (row.max() + 1, 4))[row, (shifted // 160).astype(int)]
    grain = np.sin(_Y * 1.1 + 5 * _smooth(rng, 3, 24)[..., 0])
    pixels = _flat(rng, 170, 112, 62) + (tones + 7 * grain)[..., None].astype(np.float32)
    _mark(pixels, (_Y % 30 < 2) | (shifted % 160 < 2), -60)
    return pixels


def _mountain(rng: np.random.Generator) -> Pixels:
    tile = _to_image(_flat(rng, 112, 106, 116))
    draw = ImageDraw.Draw(tile)
    tone = rng.uniform(-8, 8)
    for y in range(-30, TILE, 34):
        for x in range(-40, TILE + 40, 70):
            left, top = x + rng.uniform(-24, 24), y + rng.uniform(-14, 14)
            half, tall = rng.uniform(46, 70), rng.uniform(80, 120)
            light, dark = int(140 + tone), int(88 + tone)
            peak, foot = (left, top), top + tall
            draw.polygon([peak, (left - half, foot), (left + 6, foot)], fill=(light, light - 8, light - 4))
            draw.polygon([peak, (left + half, foot), (left + 6, foot)], fill=(dark, dark - 8, dark + 4))
            draw.polygon([peak, (left - half * 0.2, top + tall * 0.2), (left + half * 0.2, top + tall * 0.2)],
                         fill=(232, 236, 242))  # fmt: skip
    return np.asarray(tile).astype(np.float32) + _speckle(rng, 5)


def _stone_wall(rng: np.random.Generator) -> Pixels:
    grid = np.stack(np.meshgrid(np.arange(-20, TILE + 40, 40), np.arange(-20, TILE + 40, 32)), axis=-1)
    seeds = grid.reshape(-1, 2) + rng.uniform(-14, 14, (grid.size // 2, 2))
    nearest = np.full((TILE, TILE), np.inf, dtype=np.float32)
    second, owner = nearest.copy(), np.zeros((TILE, TILE), dtype=int)
    for k, (x, y) in enumerate(seeds):
        distance = np.hypot(_X - x, _Y - y).astype(np.float32)
        closer = distance < nearest
        second = np.where(closer, nearest, np.minimum(second, distance))
        owner[closer] = k
        nearest = np.minimum(nearest, distance)
    tones = rng.uniform(-26, 26, len(seeds)).astype(np.float32)
    pixels = _flat(rng, 158, 154, 142, 6) + tones[owner][..., None]
    pixels[second - nearest < 4] = (74, 70, 64)
    return pixels + _speckle(rng, 6)


def _tiled_floor(rng: np.random.Generator) -> Pixels:
    odd = ((_X // 32).astype(int) + (_Y // 32).astype(int)) % 2 == 1
    pixels = np.where(odd[..., None], _flat(rng, 232, 230, 220), _flat(rng, 74, 142, 142))
    pixels[(_X % 32 < 2) | (_Y % 32 < 2)] = (120, 120, 120)
    return pixels + 6 * _smooth(rng, 9, 9)


def _wheat_field(rng: np.random.Generator) -> Pixels:
    pixels = _strokes(_flat(rng, 206, 158, 56), rng, 2200, 40, 8, 40)
    tile = _to_image(pixels)
    draw = ImageDraw.Draw(tile)
    for x, y in rng.uniform(0, TILE, (420, 2)):
        draw.ellipse([x - 3, y - 9, x + 3, y + 9], fill=(238, 200, 104), outline=(150, 104, 30))
    return np.asarray(tile).astype(np.float32)


def _carpet(rng: np.random.Generator) -> Pixels:
    pixels = _flat(rng, 118, 30, 52)
    diamond = np.abs(_X % 64 - 32) + np.abs(_Y % 64 - 32)
    pixels[np.abs(diamond - 26) < 3] = (214, 174, 96)
    pixels[diamond < 10] = (40, 54, 96)
    return pixels + _speckle(rng, 9)


def _hedge(rng: np.random.Generator) -> Pixels:
    tile = _to_image(_flat(rng, 18, 54, 24, 6))
    draw = ImageDraw.Draw(tile)
    for x, y, radius, tone in rng.uniform((0, 0, 5, -18), (TILE, TILE, 9, 18), (2200, 4)):
        leaf = [x - radius, y - radius * 0.6, x + radius, y + radius * 0.6]
        fill = (int(36 + tone), int(92 + tone), int(44 + tone))
        draw.ellipse(leaf, fill=fill, outline=(14, 44, 20))
    return np.asarray(tile).astype(np.float32)


def _wallpaper(rng: np.random.Generator) -> Pixels:
    pixels = _flat(rng, 206, 214, 196)
    _mark(pixels, _X % 48 < 24, -18)
    centre_y = _Y % 48 - 24
    for dx, dy, reach in ((0, 0, 4), (5, 0, 4), (-5, 0, 4), (0, 5, 4), (0, -5, 4)):
        pixels[(_X % 48 - 36 - dx) ** 2 + (centre_y - dy) ** 2 < reach**2] = (176, 112, 134)
    return pixels + _speckle(rng, 2)


_MAKERS: Final[dict[str, Callable[[np.random.Generator], Pixels]]] = {
    "sky": _sky,
    "grass": _grass,
    "sand": _sand,
    "water": _water,
    "brick wall": _brick_wall,
    "road": _road,
    "snow": _snow,
    "wooden floor": _wooden_floor,
    "mountain": _mountain,
    "stone wall": _stone_wall,
    "tiled floor": _tiled_floor,
    "wheat field": _wheat_field,
    "carpet": _carpet,
    "hedge": _hedge,
    "wallpaper": _wallpaper,
}


@cache
def _tile(stuff: str, variant: int) -> Image.Image:
    return _to_image(_MAKERS[stuff](np.random.default_rng([STUFF.index(stuff), variant])))


def cut_texture(stuff: str, width: int, height: int, size: int, rng: np.random.Generator) -> Image.Image:
    """A random RGB cut of the stuff, `width` by `height` pixels, for an image `size` wide.

    Neither exceeds `size`. The texture is equally coarse, relative to the image, at every `size`.
    """
    tile = _tile(stuff, int(rng.integers(VARIANTS)))
    side = rng.uniform(0.5, 0.95) * TILE
    left, top = rng.uniform(0, TILE - side, 2)
    right, bottom = left + side * width / size, top + side * height / size
    cut = tile.resize((width, height), Image.Resampling.BILINEAR, (left, top, right, bottom))
    return cut.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if rng.random() < 0.5 else cut
