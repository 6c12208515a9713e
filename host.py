"""Computations around the stages that PyTorch and the runtime share: prompts, and bands of the label map.

They need numpy alone.
"""

from collections.abc import Iterator, Sequence

import numpy as np

SYNONYM_SEPARATOR = ", "
# Values of the up-sampled probabilities that exist at once: 64 MB in float32.
MAX_BAND_VALUES = 16_000_000
# The same of a tile, which a GPU labels at once: 256 MiB.
MAX_TILE_VALUES = 2**26


def synonyms(name: str) -> list[str]:
    """The synonyms in a category name, which ", " separates, without surrounding white space."""
    return [word.strip() for word in name.split(SYNONYM_SEPARATOR)]


def prompt_sentences(names: Sequence[str], templates: Sequence[str]) -> list[str]:
    """The sentences to embed for category names: name by name, synonym by synonym, template by template.

    Args:
        names: T category names.
        templates: P sentences with one `{}`.
    """
    return [
        template.replace("{}", word) for name in names for word in synonyms(name) for template in templates
    ]


def average_prompts(sentences: np.ndarray, names: Sequence[str], prompts: int) -> np.ndarray:
    """One embedding per category and template: the mean over the synonyms, scaled to unit length.

    Args:
        sentences: unit vectors, float32 (N, C), of the N sentences of `prompt_sentences`.
        names: T category names.
        prompts: number P of templates.

    Returns:
        Unit vectors, float32 (T, P, C).
    """
    text = np.empty((len(names), prompts, sentences.shape[1]), np.float32)
    start = 0
    for row, name in zip(text, names, strict=True):
        end = start + len(synonyms(name)) * prompts
        mean = sentences[start:end].reshape(-1, *row.shape).mean(axis=0)
        row[:] = mean / np.linalg.norm(mean, axis=-1, keepdims=True)
        start = end
    return text


def source_coordinates(size: int, output_size: int) -> np.ndarray:
    """Where the centres of `output_size` output pixels fall in a map of `size` pixels.

    Bilinear with half-pixel centres, as PyTorch's `interpolate(align_corners=False)`:
    clamp((i + 0.5) * size / output_size - 0.5, 0, size - 1).

    Returns:
        float32 (output_size,).
    """
    centres = (np.arange(output_size) + 0.5) * (size / output_size) - 0.5
    return centres.clip(0, size - 1).astype(np.float32)


def label_bands(
    height: int,
    width: int,
    categories: int,
    max_rows: int | None = None,
    max_columns: int | None = None,
    max_values: int | None = None,
) -> Iterator[tuple[slice, slice]]:
    """Split an image into parts of a bounded number of values: bands of rows, or parts of a wide row.

    Args:
        height: rows of the image.
        width: columns of the image.
        categories: values at each pixel.
        max_rows: rows that a band may have; None is any number.
        max_columns: columns that a band may have; None is any number.
        max_values: categories times pixels that a band may have; None is `MAX_BAND_VALUES`.

    Yields:
        Rows and columns of a band, from the top left to the bottom right.
    """
    pixels = max(1, (max_values or MAX_BAND_VALUES) // categories)
    columns = min(width, pixels, max_columns or width)
    rows = min(pixels // columns, max_rows or height)
    for top in range(0, height, rows):
        for left in range(0, width, columns):
            yield slice(top, top + rows), slice(left, left + columns)
