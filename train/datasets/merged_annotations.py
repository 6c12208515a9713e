"""PASCAL-Context's `trainval_merged.json`: one mask in COCO's format for each category of an image."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import InputError
from .decoding import decoding
from .listing import Item
from .readers import reader_package

_READER, _PACKAGE = "pycocotools.mask", "pycocotools"


class MergedAnnotations:
    """The annotations of a phase, "train" or "val", read once.

    `labels` leads from the stem of each annotated image to the file itself; `stems` are all images of
    the phase, in the file's order.
    """

    def __init__(self, path: Path, phase: str) -> None:
        """Read the file.

        Raises:
            InputError: pycocotools is missing, or the file cannot be read, is not of this format, or has no
                image of the phase.
        """
        # Said before the long reading rather than at the first sample.
        reader_package(_READER, _PACKAGE)
        self.path = path
        content = _read_json(path)
        try:
            images = [each for each in content["images"] if each["phase"] == phase]
            stems = {each["image_id"]: Path(each["file_name"]).stem for each in images}
            self.sizes = {
                Path(each["file_name"]).stem: (int(each["height"]), int(each["width"])) for each in images
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
        self.stems = list(self.sizes)
        self.labels: Mapping[str, Path] = dict.fromkeys(self.masks, path)

    def read(self, item: Item) -> np.ndarray:
        """The category ids of an image, int32 (H, W): of the last mask that covers a pixel, 0 without one.

        Raises:
            InputError: pycocotools is missing, or a mask is broken.
        """
        stem = item.image.stem
        size = self.sizes[stem]
        labels = np.zeros(size, np.int32)
        for category, segmentation in self.masks[stem]:
            labels[decoded(segmentation, size, f"{self.path}: category {category} of {stem}")] = category
        return labels


def decoded(segmentation: Any, size: tuple[int, int], name: str) -> np.ndarray:
    """A mask in COCO's format, bool (H, W): run lengths, compressed or not, or polygons.

    Raises:
        InputError: pycocotools is missing, or the mask is broken or of another size; the message begins
            with `name`.
    """
    coco = reader_package(_READER, _PACKAGE)
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


def _read_json(path: Path) -> Any:
    with decoding(path):
        return json.loads(path.read_bytes())
