"""The picture with its labels in colour and a legend below it."""

from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ..errors import InputError
from .palette import colours

_MAX_ENTRIES = 40
_MAX_NAME_LENGTH = 40


def draw_overlay(
    image: np.ndarray,
    labels: np.ndarray,
    names: Sequence[str],
    shares: Mapping[int, float],
    alpha: float = 0.5,
    legend: bool = True,
) -> Image.Image:
    """Blend each pixel of `image`, uint8 (H, W, 3), with its label's colour, `labels` being uint16 (H, W).

    `shares` maps the indices of present categories to fractions of the picture, in the legend's order. The
    legend stands below the picture, names the 40 largest and widens a picture too narrow for it.

    Raises:
        InputError: `alpha` is not within 0 (picture only) to 1 (colours only).
    """
    if not 0 <= alpha <= 1:
        raise InputError(f"alpha: {alpha} is out of range, expected 0 (picture only) to 1 (colours only)")
    table = colours(len(names))
    blended = Image.blend(Image.fromarray(image), Image.fromarray(table[labels]), alpha)
    if not legend:
        return blended
    entries = [(tuple(table[index].tolist()), _entry(names[index], share)) for index, share in shares.items()]
    panel = _draw_legend(entries, blended.size)
    whole = Image.new("RGB", (max(blended.width, panel.width), blended.height + panel.height), "white")
    whole.paste(blended, (0, 0))
    whole.paste(panel, (0, blended.height))
    return whole


def _entry(name: str, share: float) -> str:
    short = name if len(name) <= _MAX_NAME_LENGTH else name[: _MAX_NAME_LENGTH - 1] + "…"
    return f"{short}  {share:.1%}"


def _draw_legend(entries: list[tuple[tuple[int, ...], str]], picture: tuple[int, int]) -> Image.Image:
    size = min(48, max(12, max(picture) // 45))
    font = ImageFont.load_default(size)
    shown = entries[:_MAX_ENTRIES]
    rest = len(entries) - len(shown)
    texts = [text for _, text in shown] + ([f"and {rest} more"] if rest else [])
    row_height = size * 3 // 2
    entry_width = max(int(font.getlength(text)) for text in texts) + 3 * size
    columns = min(len(texts), max(1, picture[0] // entry_width))
    rows = -(-len(texts) // columns)
    panel = Image.new("RGB", (columns * entry_width, rows * row_height + size // 2), "white")
    draw = ImageDraw.Draw(panel)
    for number, text in enumerate(texts):
        column, row = divmod(number, rows)
        left, top = column * entry_width + size // 2, row * row_height + size // 2
        if number < len(shown):
            draw.rectangle((left, top, left + size, top + size), fill=shown[number][0], outline="black")
        draw.text((left + size * 3 // 2, top + size / 2), text, fill="black", font=font, anchor="lm")
    return panel
