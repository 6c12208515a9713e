"""The procedural scenes as a data set."""

from collections.abc import Sequence

import numpy as np

from ..scenes import VOCABULARY, Split, make_scene
from .dataset import Dataset, Sample

EVALUATED = 200


class Scenes(Dataset):
    """Scenes, each drawn from its seed alone when it is read; labels index the scenes' vocabulary."""

    def __init__(
        self,
        split: Split = "test",
        length: int = EVALUATED,
        size: int = 256,
        first_seed: int = 0,
        names: Sequence[str] = VOCABULARY,
    ) -> None:
        """Set up.

        Args:
            split: "train", without held-out pairs, or "test".
            length: how many scenes.
            size: height and width in pixels.
            first_seed: of the first scene; the others count up from it.
            names: a vocabulary that starts with the scenes' own.
        """
        self.name, self.split = "scenes", split
        self.names = self.classes = tuple(names)
        self.scored_as = np.arange(len(self.names), dtype=np.int32)
        self._split, self._length, self._size, self._first_seed = split, length, size, first_seed

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> Sample:
        scene = make_scene(self._seed(index), self._size, self._split)
        return Sample(scene.image, scene.labels.astype(np.int32))

    def identity(self, index: int) -> str:
        return f"scene {self._seed(index)} of split {self.split}"

    def _seed(self, index: int) -> int:
        if not 0 <= index < self._length:
            raise IndexError(f"scene {index} of {self._length}")
        return self._first_seed + index
