"""Which categories a training step looks at."""

import numpy as np

from .scenes import COLOURS, SEEN, THINGS, VOCABULARY, longer_vocabulary

# Absent names, so that the network learns to want none of them. It is tested with vocabularies of up to 847
# names, which hold none of these.
ABSENT = longer_vocabulary(1205)[847:]


class CategorySampler:
    """Draws the categories of a step: those present, ones easily taken for them, and any others.

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
        """Choose categories for a batch of label maps.

        Args:
            labels: indices into VOCABULARY, any shape.

        Returns:
            Indices into `names`, int64 (T,), T between half and one and a half times `size` or as many as are
            present, and the labels as positions in them, of the shape of `labels`.
        """
        found, inverse = np.unique(labels, return_inverse=True)
        present = self.of_label[found]
        alike = np.unique([other for name in present for other in self.confusable[name]]).astype(np.int64)
        alike = self.random.permutation(np.setdiff1d(alike, present))
        # Class attention must not get used to one number of categories.
        size = int(self.random.integers(self.size // 2, self.size * 3 // 2 + 1))
        wanted = max(0, size - len(present))
        chosen = np.concatenate([present, alike[: wanted * 2 // 3]])
        others = self.random.permutation(np.setdiff1d(np.arange(len(self.names)), chosen))
        chosen = np.concatenate([chosen, others[: max(0, size - len(chosen))]])
        return chosen, inverse.reshape(labels.shape)


def confusable(name: str, position: dict[str, int]) -> list[int]:
    """The same thing in other colours and other things in the same colour, where they may be trained on."""
    colour, _, thing = name.partition(" ")
    if colour not in COLOURS or thing not in THINGS:
        return []
    alike = [f"{other} {thing}" for other in COLOURS] + [f"{colour} {other}" for other in THINGS]
    return [position[other] for other in alike if other in position and other != name]
