"""Which categories a training step looks at."""

import numpy as np

from .scenes import COLOURS, SEEN, THINGS, VOCABULARY, longer_vocabulary

# Absent names, so that the network learns to want none of them. It is tested with vocabularies of up to 847
# names, which hold none of these.
ABSENT = longer_vocabulary(1205)[847:]


class CategorySampler:
    """Draws each image's categories: those present, ones easily taken for them, and any others.

    Attributes:
        names: every name a step may look at; held-out pairs are not among them.
    """

    def __init__(self, size: int, seed: int) -> None:
        self.size = size
        self.random = np.random.default_rng(seed)
        self.names = (*SEEN, *ABSENT)
        position = {name: index for index, name in enumerate(self.names)}
        self.of_label = np.array([position.get(name, -1) for name in VOCABULARY])
        self.confusable = [confusable(name, position) for name in SEEN]

    def draw(self, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Choose categories for each image of a batch.

        Args:
            labels: indices into VOCABULARY, (B, R, R).

        Returns:
            Indices into `names`, int64 (B, T), and the labels as positions in them, int64 (B, R, R). T is
            half to one and a half times `size`, or as many as are present in an image.
        """
        found = [np.unique(each, return_inverse=True) for each in labels]
        # Class attention must not get used to one number of categories.
        size = int(self.random.integers(self.size // 2, self.size * 3 // 2 + 1))
        size = max(size, *(len(present) for present, _ in found))
        chosen = np.stack([self.choose(self.of_label[present], size) for present, _ in found])
        return chosen, np.stack([inverse.reshape(labels.shape[1:]) for _, inverse in found])

    def choose(self, present: np.ndarray, size: int) -> np.ndarray:
        """`size` indices into `names`: those present, then others, two thirds easily taken for those."""
        alike = np.unique([other for name in present for other in self.confusable[name]]).astype(np.int64)
        alike = self.random.permutation(np.setdiff1d(alike, present))
        chosen = np.concatenate([present, alike[: (size - len(present)) * 2 // 3]])
        others = self.random.permutation(np.setdiff1d(np.arange(len(self.names)), chosen))
        return np.concatenate([chosen, others[: size - len(chosen)]])


def confusable(name: str, position: dict[str, int]) -> list[int]:
    """The same thing in other colours and other things in the same colour, where they may be trained on."""
    colour, _, thing = name.partition(" ")
    if colour not in COLOURS or thing not in THINGS:
        return []
    alike = [f"{other} {thing}" for other in COLOURS] + [f"{colour} {other}" for other in THINGS]
    return [position[other] for other in alike if other in position and other != name]
