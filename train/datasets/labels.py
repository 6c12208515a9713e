"""Label files: how each kind is read, and which category a stored value stands for."""

import importlib
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from importlib import resources
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from PIL import Image

from ...errors import InputError
from .dataset import IGNORED

# In a table: the value is none that the set's label files may hold.
OUTSIDE = -2
_VALUES = 65536
# Pillow stretches grey of 2 and 4 bits to 8 bits by these factors.
_STRETCHED = {"L;2": 85, "L;4": 17}
_MATLAB_NAME = "LabelMap"


def reader_package(module: str, package: str) -> ModuleType:
    """The module, from the package that brings it.

    Raises:
        InputError: the package is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise InputError(
            f"the package {package!r} is not installed, which reads this data set; in sed-trt's folder, "
            "pip install -e '.[train]'"
        ) from error


@contextmanager
def decoding(path: Path) -> Iterator[None]:
    """Turn a decoder's error on the file at `path` into one that names it.

    Raises:
        InputError: the block raised an error; InputErrors pass as they are.
    """
    try:
        yield
    except InputError:
        raise
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file; restore it") from error
    except Exception as error:
        # On broken content SciPy raises nearly anything, such as bare Exceptions and ZeroDivisionErrors.
        reason = str(error) or type(error).__name__
        raise InputError(f"{path}: cannot be read ({reason}); check that the file is whole") from error


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
                f"{path}: is an image in {image.mode}, expected labels in one channel: 8 or 16-bit grey, or "
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
        InputError: the file cannot be read or is not in RGB.
    """
    with decoding(path), Image.open(path) as image:
        if image.mode not in ("RGB", "RGBA"):
            raise InputError(f"{path}: is an image in {image.mode}, expected ADE20K's labels in RGB colours")
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
        others = ", ".join(sorted(name for name in content if not name.startswith("__"))) or "none"
        raise InputError(
            f"{path}: holds no variable {_MATLAB_NAME} (found: {others}); download the file again"
        )
    values = np.asarray(content[_MATLAB_NAME])
    if values.ndim != 2 or values.size == 0 or values.dtype.kind not in "iuf":
        raise InputError(
            f"{path}: {_MATLAB_NAME} is {values.dtype} {values.shape}, expected integers (height, width)"
        )
    integers = values.astype(np.int64) if values.dtype.kind == "f" else values
    if (integers != values).any():
        raise InputError(f"{path}: {_MATLAB_NAME} holds fractions, expected integers (height, width)")
    return integers


class MergedAnnotations:
    """PASCAL-Context's `trainval_merged.json`: COCO masks of all images, read once.

    Attributes:
        path: of the file.
        sizes: height and width by the stem of each image of the phase, in the file's order.
        masks: category and mask by stem, in the file's order, of the images that have any.
    """

    def __init__(self, path: Path, phase: str) -> None:
        """Read the annotations of a phase, "train" or "val".

        Raises:
            InputError: pycocotools is missing, or the file cannot be read, is not of this format, or has no
                image of the phase.
        """
        # Said before the long reading rather than at the first sample.
        _coco_masks()
        self.path = path
        with decoding(path):
            content = json.loads(path.read_bytes())
        try:
            images = [each for each in content["images"] if each["phase"] == phase]
            stems = {each["image_id"]: Path(each["file_name"]).stem for each in images}
            self.sizes = {
                stems[each["image_id"]]: (int(each["height"]), int(each["width"])) for each in images
            }
            self.masks: dict[str, list[tuple[int, Any]]] = {}
            for each in content["annos_segmentation"]:
                if each["image_id"] in stems:
                    mask = (int(each["category_id"]), each["segmentation"])
                    self.masks.setdefault(stems[each["image_id"]], []).append(mask)
        except (LookupError, TypeError, ValueError) as error:
            raise InputError(
                f"{path}: is not PASCAL-Context's trainval_merged.json ({type(error).__name__}: {error}); "
                "download it again"
            ) from error
        if not self.sizes:
            raise InputError(f"{path}: holds no image of the phase {phase!r}; download it again")

    def read(self, stem: str) -> np.ndarray:
        """The category ids of an image, int32 (H, W): of the last mask that covers a pixel, 0 without one.

        Raises:
            InputError: pycocotools is missing, or a mask is broken.
        """
        size = self.sizes[stem]
        labels = np.zeros(size, np.int32)
        for category, segmentation in self.masks[stem]:
            labels[decoded_mask(segmentation, size, f"{self.path}: category {category} of {stem}")] = category
        return labels


def decoded_mask(segmentation: Any, size: tuple[int, int], name: str) -> np.ndarray:
    """A mask in COCO's format, bool (H, W): run lengths, compressed or not, or polygons.

    Raises:
        InputError: pycocotools is missing, or the mask is broken or of another size; the message begins
            with `name`.
    """
    coco = _coco_masks()
    try:
        if isinstance(segmentation, list):
            mask = coco.decode(coco.merge(coco.frPyObjects(segmentation, *size)))
        elif isinstance(segmentation["counts"], list):
            # pycocotools leaves pixels that no run covers as memory was.
            if sum(segmentation["counts"]) != size[0] * size[1]:
                raise ValueError(f"its runs are {sum(segmentation['counts'])} pixels long")
            mask = coco.decode(coco.frPyObjects(segmentation, *segmentation["size"]))
        else:
            mask = coco.decode(segmentation)
    except Exception as error:
        # pycocotools raises bare Exceptions as well.
        raise InputError(
            f"{name}: the mask is broken ({type(error).__name__}: {error}); download the file again"
        ) from error
    if mask.shape != size:
        raise InputError(f"{name}: the mask is {mask.shape}, expected {size}; download the file again")
    return mask.astype(bool)


def _coco_masks() -> ModuleType:
    return reader_package("pycocotools.mask", "pycocotools")


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


def published_table(name: str, ignored: Iterable[int] = (), others: int = OUTSIDE) -> np.ndarray:
    """The table of the raw label ids of "ade847", "coco_stuff" or "pc59"; otherwise as `table_of`."""
    return table_of(published_ids(name), ignored, others)


@cache
def published_ids(name: str) -> Mapping[int, int]:
    """Category index by raw label id, of "ade847", "coco_stuff" or "pc59"."""
    text = resources.files(__package__).joinpath("label_ids.json").read_text(encoding="utf-8")
    return {int(value): index for value, index in json.loads(text)[name].items()}


def to_categories(values: np.ndarray, table: np.ndarray) -> tuple[np.ndarray, tuple[int, ...]]:
    """Category indices of the values of a label file, and the values that stand for nothing.

    Args:
        values: integers (H, W), of any type.
        table: see `table_of`.

    Returns:
        int32 (H, W), `IGNORED` where a value is not scored or stands for nothing; and these last, sorted.
    """
    beyond = (values < 0) | (values >= len(table)) if values.dtype not in (np.uint8, np.uint16) else None
    labels = table[values if beyond is None else np.where(beyond, 0, values)]
    if beyond is not None:
        labels[beyond] = OUTSIDE
    outside = labels == OUTSIDE
    if not outside.any():
        return labels, ()
    labels[outside] = IGNORED
    return labels, tuple(int(value) for value in np.unique(values[outside]))
