"""What every data set offers: pictures with their labels, and the names that the labels index."""

import importlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np
from PIL import Image

from ...errors import InputError
from ...runtime.images import load_image

IGNORED = -1


@dataclass(frozen=True, eq=False)
class Sample:
    """A picture with its labels.

    `image` is uint8 (H, W, 3), RGB; `labels` is int32 (H, W), indices into the data set's categories, or
    `IGNORED` where nothing is scored.
    """

    image: np.ndarray
    labels: np.ndarray


class Dataset(ABC):
    """Pictures with labels, in a fixed order; may be read from several processes at once.

    `names` is the vocabulary that is segmented, `classes` what is scored: labels index `classes`, and
    `scored_as`, int32 (len(names),), is the class of each name. The two are the same for most sets; voc20b
    segments 59 names, of which those after the first 20 count as its class "background".

    `max_short_side` is the length in pixels to which the published evaluation resizes the shorter side of
    images (bilinear, without antialiasing) and labels (nearest) where that is longer; None where it does no
    such thing. Samples come as their files are.
    """

    name: str
    split: str
    names: tuple[str, ...]
    classes: tuple[str, ...]
    scored_as: np.ndarray
    max_short_side: int | None = None

    @abstractmethod
    def __len__(self) -> int:
        """The number of samples."""

    @abstractmethod
    def __getitem__(self, index: int) -> Sample:
        """The sample of an index from 0 to len - 1.

        Raises:
            InputError: a file of it is missing or cannot be read, image and labels differ in size, or a label
                is no category of the set; the message names the file.
            IndexError: the index is outside the set.
        """

    @abstractmethod
    def identity(self, index: int) -> str:
        """What messages and logs call the sample: its image's path, or the number of the scene."""


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


def read_upright(path: Path) -> np.ndarray:
    """The picture, uint8 RGB (H, W, 3), turned as its EXIF orientation says, as detectron2 reads it.

    Raises:
        InputError: the file cannot be read.
    """
    return load_image(path)


def read_as_stored(path: Path) -> np.ndarray:
    """The picture, uint8 RGB (H, W, 3), whatever its EXIF orientation says.

    Raises:
        InputError: the file cannot be read.
    """
    with decoding(path), Image.open(path) as image:
        return load_image(np.array(image.convert("RGB")))
