"""Label maps as the published sets store them: PNG, TIFF, ADE20K's coloured PNG, MATLAB files."""

from pathlib import Path

import numpy as np
from PIL import Image

from ...errors import InputError
from .decoding import decoding
from .readers import reader_package

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
