"""Label maps of the published sets: their files, and which category a stored value stands for."""

import json
from collections.abc import Iterable, Mapping
from functools import cache
from importlib import resources
from pathlib import Path

import numpy as np
from PIL import Image

from ...errors import InputError
from .dataset import IGNORED, decoding, reader_package

# Pillow stretches grey of 2 and 4 bits to 8 bits by these factors.
_STRETCHED = {"L;2": 85, "L;4": 17}
_MATLAB_NAME = "LabelMap"


def read_label_image(path: Path) -> np.ndarray:
    """The values of a PNG or TIFF of one channel: grey of 1 to 16 bits, or the indices of a palette.

    Returns:
        (H, W), uint8, or uint16 where the file has 16 bits.

    Raises:
        InputError: the file cannot be read or has several channels.
    """
    with decoding(path), Image.open(path) as image:
        if image.mode not in ("1", "L", "P") and not image.mode.startswith("I"):
            raise InputError(
                f"{path}: is a picture in {image.mode}, expected labels in one channel: 8 or 16-bit grey, or "
                "a palette"
            )
        stored = image.tile[0][3] if image.format == "PNG" and image.tile else None
        values = np.asarray(image)
    if values.dtype == np.int32 and values.min() >= 0 and values.max() <= 65535:
        # Some versions of Pillow read 16-bit PNG as 32-bit integers.
        return values.astype(np.uint16)
    if values.dtype.itemsize > 1:
        return values.astype(values.dtype.newbyteorder("="))
    return values.astype(np.uint8) // _STRETCHED.get(str(stored), 1)


def read_ade_colours(path: Path) -> np.ndarray:
    """The class ids of an ADE20K `_seg.png`, int32 (H, W): (red // 10) * 256 + green.

    Raises:
        InputError: the file cannot be read or is no colour picture.
    """
    with decoding(path), Image.open(path) as image:
        if image.mode not in ("RGB", "RGBA"):
            raise InputError(f"{path}: is a picture in {image.mode}, expected ADE20K's labels in RGB colours")
        colours = np.asarray(image)
    return (colours[:, :, 0] // 10).astype(np.int32) * 256 + colours[:, :, 1]


def read_label_map(path: Path) -> np.ndarray:
    """The variable LabelMap of a MATLAB file, integers (H, W).

    Raises:
        InputError: SciPy is missing, the file cannot be read, or the variable is missing or no label map.
    """
    io = reader_package("scipy.io", "scipy")
    with decoding(path):
        content = io.loadmat(str(path))
    if _MATLAB_NAME not in content:
        found = ", ".join(sorted(name for name in content if not name.startswith("__"))) or "none"
        raise InputError(
            f"{path}: holds no variable {_MATLAB_NAME} (found: {found}); download the file again"
        )
    values = np.asarray(content[_MATLAB_NAME])
    if values.ndim != 2 or values.size == 0 or values.dtype.kind not in "iuf":
        raise InputError(
            f"{path}: {_MATLAB_NAME} is {values.dtype} {values.shape}, expected integers (height, width)"
        )
    if values.dtype.kind == "f":
        whole = values.astype(np.int64)
        if (whole != values).any():
            raise InputError(f"{path}: {_MATLAB_NAME} holds fractions, expected integers (height, width)")
        return whole
    return values


# In a table: the value is none that the set's label files may hold.
OUTSIDE = -2
_VALUES = 65536


@cache
def published_ids(name: str) -> Mapping[int, int]:
    """Category index by raw label id, of "ade847", "coco_stuff" or "pc59"."""
    text = resources.files(__package__).joinpath("label_ids.json").read_text(encoding="utf-8")
    return {int(value): index for value, index in json.loads(text)[name].items()}


def table_of(ids: Mapping[int, int], ignored: Iterable[int] = (), others: int = OUTSIDE) -> np.ndarray:
    """What each value from 0 to 65535 stands for, int32: a category index, `IGNORED` or `OUTSIDE`.

    Args:
        ids: category index by value.
        ignored: values that are not scored; they win over `ids`.
        others: what every value in neither stands for.
    """
    table = np.full(_VALUES, others, np.int32)
    table[list(ids.keys())] = list(ids.values())
    table[list(ignored)] = IGNORED
    return table


def counted_from(first: int, count: int, ignored: Iterable[int] = ()) -> np.ndarray:
    """The table of labels whose values count up from `first`, one for each of `count` categories."""
    return table_of({first + index: index for index in range(count)}, ignored)


def to_categories(raw: np.ndarray, table: np.ndarray) -> tuple[np.ndarray, tuple[int, ...]]:
    """Category indices of the values of a label file, and the values that stand for nothing.

    Args:
        raw: integers (H, W), of any type.
        table: see `table_of`.

    Returns:
        int32 (H, W), `IGNORED` where a value is not scored or stands for nothing; and these last, sorted.
    """
    beyond = (raw < 0) | (raw >= len(table)) if raw.dtype not in (np.uint8, np.uint16) else None
    labels = table[raw if beyond is None else np.where(beyond, 0, raw)]
    if beyond is not None:
        labels[beyond] = OUTSIDE
    outside = labels == OUTSIDE
    if not outside.any():
        return labels, ()
    labels[outside] = IGNORED
    return labels, tuple(int(value) for value in np.unique(raw[outside]))
