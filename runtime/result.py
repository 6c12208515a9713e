"""The result of segmenting one image, its overlay and summary, and the files with them."""

import colorsys
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ..errors import InputError
from ..files import replacing

# Entries of a PNG's palette.
PALETTE_SIZE = 256

# Rows of a label map that are counted at a time.
_COUNTED_ROWS = 256

# Categories that a legend names.
MAX_LEGEND_ENTRIES = 40
_MAX_LEGEND_NAME = 40
_GOLDEN_RATIO = 0.618033988749895
# Saturation and value vary as well, since hues alone would be too close with many categories.
_SATURATION_AND_VALUE = ((0.80, 0.95), (0.55, 0.80), (0.95, 0.70), (0.45, 1.00))


@dataclass(frozen=True, eq=False)
class Result:
    """Labels of one image of H x W pixels, upright by its EXIF orientation.

    Attributes:
        labels: uint16 (H, W), index into `names`.
        scores: float32 (H, W), probability of the label; None where they were not asked for.
        names: the T category names of the vocabulary.
        kept: categories left after each of the three rejection points.
        kept_ids: int64 (K,), rising indices of those left after the last.
        timings: milliseconds by step and stage. On a GPU a stage ends as soon as its work is queued; the time
            that the work takes counts for the next stage whose output the host reads. Results of one encoded
            image all hold the time that its encoding took.
        image: uint8 RGB (H, W, 3), the image itself.
    """

    labels: np.ndarray
    scores: np.ndarray | None
    names: tuple[str, ...]
    kept: tuple[int, ...]
    kept_ids: np.ndarray
    timings: Mapping[str, float]
    image: np.ndarray

    @cached_property
    def pixel_counts(self) -> dict[int, int]:
        """Category index to number of pixels, of those present, largest first."""
        counts = np.zeros(len(self.names), dtype=np.int64)
        # bincount takes a copy of 8 bytes a pixel, which of a large image would be most of its memory.
        for start in range(0, len(self.labels), _COUNTED_ROWS):
            rows = self.labels[start : start + _COUNTED_ROWS]
            counts += np.bincount(rows.ravel(), minlength=len(self.names))
        present = sorted(np.flatnonzero(counts), key=lambda index: -counts[index])
        return {int(index): int(counts[index]) for index in present}

    def shares(self) -> dict[str, float]:
        """Category name to its fraction of the image, of those present, largest first."""
        return {self.names[index]: count / self.labels.size for index, count in self.pixel_counts.items()}

    def overlay(self, alpha: float = 0.5, legend: bool = True) -> Image.Image:
        """The image, each pixel blended with its label's colour, above a legend of the categories present.

        The legend names the 40 largest with their shares, and widens an image too narrow for it.

        Raises:
            InputError: `alpha` is not within 0 (image only) to 1 (colours only).
        """
        if not 0 <= alpha <= 1:
            raise InputError(f"alpha: {alpha} is out of range, expected 0 (image only) to 1 (colours only)")
        table = colours(len(self.names))
        blended = Image.blend(Image.fromarray(self.image), Image.fromarray(table[self.labels]), alpha)
        if not legend:
            return blended
        entries = [
            (tuple(table[index].tolist()), _entry(self.names[index], count / self.labels.size))
            for index, count in self.pixel_counts.items()
        ]
        panel = draw_legend(entries, blended.size)
        whole = Image.new("RGB", (max(blended.width, panel.width), blended.height + panel.height), "white")
        whole.paste(blended, (0, 0))
        whole.paste(panel, (0, blended.height))
        return whole


def colours(count: int) -> np.ndarray:
    """RGB of the categories 0 to count - 1, uint8 (count, 3); hues follow the golden ratio."""
    table = [
        colorsys.hsv_to_rgb(index * _GOLDEN_RATIO % 1, *_SATURATION_AND_VALUE[index % 4])
        for index in range(count)
    ]
    return np.rint(np.array(table) * 255).astype(np.uint8)


def _entry(name: str, share: float) -> str:
    short = name if len(name) <= _MAX_LEGEND_NAME else name[: _MAX_LEGEND_NAME - 1] + "…"
    return f"{short}  {share:.1%}"


def draw_legend(entries: list[tuple[tuple[int, ...], str]], image_size: tuple[int, int]) -> Image.Image:
    """A panel that shows colours with their texts, in columns about as wide as the image together."""
    size = min(48, max(12, max(image_size) // 45))
    font = ImageFont.load_default(size)
    shown = entries[:MAX_LEGEND_ENTRIES]
    rest = len(entries) - len(shown)
    texts = [text for _, text in shown] + ([f"and {rest} more"] if rest else [])
    row_height = size * 3 // 2
    entry_width = max(int(font.getlength(text)) for text in texts) + 3 * size
    columns = min(len(texts), max(1, image_size[0] // entry_width))
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


def write_labels(path: Path, result: Result) -> None:
    """Write the label map as PNG: palette colours up to 256 categories, 16-bit grey above.

    Pixel values are category indices in both. Raises InputError when the file cannot be written.
    """
    count = len(result.names)
    if count <= PALETTE_SIZE:
        image = Image.fromarray(result.labels.astype(np.uint8))
        image.putpalette(colours(count).tobytes())
    else:
        image = Image.fromarray(result.labels)
    with replacing(path) as temporary:
        image.save(temporary, format="PNG")


def write_overlay(path: Path, result: Result) -> None:
    """Write the overlay with its legend as PNG; raises InputError when that cannot be done."""
    with replacing(path) as temporary:
        # Of a photo the default level takes four times as long and saves next to nothing.
        result.overlay().save(temporary, format="PNG", compress_level=1)


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write `content` as JSON; raises InputError when the file cannot be written."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def summary(source: str, result: Result) -> dict[str, Any]:
    """The content of the JSON file of the image `source`: sizes in pixels, times in milliseconds."""
    height, width = result.labels.shape
    return {
        "image": source,
        "width": width,
        "height": height,
        "categories": [
            {"index": index, "name": result.names[index], "share": count / (height * width), "pixels": count}
            for index, count in result.pixel_counts.items()
        ],
        "kept": list(result.kept),
        "timings_ms": {stage: round(ms, 3) for stage, ms in result.timings.items()},
    }
