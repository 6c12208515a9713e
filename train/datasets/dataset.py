"""What every data set offers: pictures with their labels, and the names that the labels index."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np

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
