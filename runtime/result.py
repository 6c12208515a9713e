"""The result of segmenting one image, its overlay and its files."""

import colorsys
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ..errors import InputError
from ..files import replacing

_GOLDEN_RATIO = 0.618033988749895
# Neighbours in hue differ in strength, so that many categories stay apart.
_SATURATION_AND_VALUE = ((0.80, 0.95), (0.55, 0.80), (0.95, 0.70), (0.45, 1.00))


def colours(count: int) -> np.ndarray:
    """RGB of the categories 0 to count - 1, uint8 (count, 3); hues follow the golden ratio."""
    table = [
        colorsys.hsv_to_rgb(index * _GOLDEN_RATIO % 1, *_SATURATION_AND_VALUE[index % 4])
        for index in range(count)
    ]
    return np.rint(np.array(table) * 255).astype(np.uint8)


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


@dataclass(frozen=True, eq=False)
class Result:
    """Labels of one image of H x W pixels, upright by its EXIF orientation.

    Attributes:
        labels: uint16 (H, W), index into `names`.
        scores: float32 (H, W), probability of the label.
        names: the T category names that were looked for.
        kept: categories alive after `scout`, `decode1` and `decode2`.
        kept_ids: int64 (K,), indices of those alive at the end, rising.
        timings: milliseconds by step and stage. On a GPU a stage is over as soon as its work is under way;
            the time that the work takes falls to the next stage whose output the host reads. Results of one
            encoded picture all have the time that its encoding took.
        image: uint8 RGB (H, W, 3), the picture itself.
    """

    labels: np.ndarray
    scores: np.ndarray
    names: tuple[str, ...]
    kept: tuple[int, int, int]
    kept_ids: np.ndarray
    timings: Mapping[str, float]
    image: np.ndarray

    @cached_property
    def pixel_counts(self) -> dict[int, int]:
        """Category index to number of pixels, of those present, largest first."""
        counts = np.bincount(self.labels.ravel(), minlength=len(self.names))
        present = sorted(np.flatnonzero(counts), key=lambda index: -counts[index])
        return {int(index): int(counts[index]) for index in present}

    def shares(self) -> dict[str, float]:
        """Category name to its fraction of the picture, of those present, largest first."""
        return {self.names[index]: share for index, share in self._shares_by_index().items()}

    def overlay(self, alpha: float = 0.5, legend: bool = True) -> Image.Image:
        """The picture with its labels in colour and, below it, a legend of what is present with its share.

        Raises:
            InputError: `alpha` is not within 0 (picture only) to 1 (colours only).
        """
        return draw_overlay(self.image, self.labels, self.names, self._shares_by_index(), alpha, legend)

    def _shares_by_index(self) -> dict[int, float]:
        return {index: count / self.labels.size for index, count in self.pixel_counts.items()}


PALETTE_SIZE = 256


def write_labels(path: Path, result: Result) -> None:
    """Write the label map as PNG: palette colours up to 256 categories, 16-bit grey above.

    Pixel values are category indices in both. Raises InputError when the file cannot be written.
    """
    count = len(result.names)
    if count <= PALETTE_SIZE:
        picture = Image.fromarray(result.labels.astype(np.uint8))
        picture.putpalette(colours(count).tobytes())
    else:
        picture = Image.fromarray(result.labels)
    with replacing(path) as temporary:
        picture.save(temporary, format="PNG")


def write_overlay(path: Path, result: Result) -> None:
    """Write the picture with its labels in colour as PNG; raises InputError when that cannot be done."""
    with replacing(path) as temporary:
        # Of a photo the usual level takes four times as long and saves next to nothing.
        result.overlay().save(temporary, format="PNG", compress_level=1)


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write `content` as JSON; raises InputError when the file cannot be written."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def summary(source: str, result: Result) -> dict[str, Any]:
    """What `result` says of the picture `source`, ready for JSON: sizes in pixels, times in milliseconds."""
    height, width = result.labels.shape
    shares = result.shares()
    return {
        "image": source,
        "width": width,
        "height": height,
        "categories": [
            {
                "index": index,
                "name": result.names[index],
                "share": shares[result.names[index]],
                "pixels": count,
            }
            for index, count in result.pixel_counts.items()
        ],
        "kept": list(result.kept),
        "timings_ms": {stage: round(ms, 3) for stage, ms in result.timings.items()},
    }
