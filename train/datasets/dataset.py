"""What every data set offers: images with their labels, and the names that the labels index."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np

# As a label: the pixel is not scored.
IGNORED = -1


@dataclass(frozen=True, eq=False)
class Sample:
    """An image with its labels.

    Attributes:
        image: RGB uint8 (H, W, 3).
        labels: int32 (H, W), indices into the data set's classes, or `IGNORED`.
    """

    image: np.ndarray
    labels: np.ndarray


class Dataset(ABC):
    """Images with labels, in a fixed order; may be read from several processes at once.

    Attributes:
        name: of the set, or the path of an own folder.
        split: "train", "val" or "test".
        names: the vocabulary that is segmented.
        classes: what is scored, and what labels index. The same as `names` for most sets; voc20b segments 59
            names, of which those after the first 20 count as its class "background".
        scored_as: int32 (len(names),), the class of each name.
        max_short_side: length in pixels to which the published evaluation resizes the shorter side of images
            (bilinear, without antialiasing) and labels (nearest) where that is longer; None where it does no
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
