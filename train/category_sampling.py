"""Which categories a training step looks at."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .scenes import COLOURS, SEEN, THINGS, VOCABULARY, longer_vocabulary

# Absent names, so that the network learns to want none of them. It is tested with vocabularies of up to 847
# names, which hold none of these.
ABSENT = longer_vocabulary(1205)[847:]
# Streams of random numbers, apart from those of other parts of the training.
SIZES, CHOICES = 5, 6


@dataclass(frozen=True)
class TrainedNames:
    """What a training tells apart.

    Attributes:
        names: every name a step may look at.
        of_label: which of them each label of the data set is, -1 for none; int64.
        alike: for each of the first names, others that are easily taken for it; the rest have none.
    """

    names: tuple[str, ...]
    of_label: np.ndarray
    alike: tuple[tuple[int, ...], ...] = ()


def scene_names() -> TrainedNames:
    """Those of the scenes, but for held-out pairs, and names that no scene shows."""
    names = (*SEEN, *ABSENT)
    position = {name: index for index, name in enumerate(names)}
    of_label = np.array([position.get(name, -1) for name in VOCABULARY])
    return TrainedNames(names, of_label, tuple(confusable(name, position) for name in SEEN))


def plain_names(names: Sequence[str]) -> TrainedNames:
    """Those of a data set whose labels index `names`."""
    return TrainedNames(tuple(names), np.arange(len(names)))


class CategorySampler:
    """Chooses each sample's categories: those present, ones easily taken for them, and any others.

    What it chooses is a function of the seed, the step and the sample's number alone.
    """

    def __init__(self, trained: TrainedNames, size: int | None, seed: int, vary: bool = True) -> None:
        """Set up.

        Args:
            trained: what there is to choose from.
            size: categories per sample; None means all, always.
            seed: of the choices.
            vary: draw the number of categories of each step from half of `size` to one and a half times it.
        """
        self.trained, self.size, self.seed, self.vary = trained, size, seed, vary

    def draw(self, labels: np.ndarray, step: int, number: int) -> tuple[np.ndarray | None, np.ndarray]:
        """Choose categories for a sample.

        Args:
            labels: labels of the data set, (R, R); negative where ignored.
            step: of the training; all samples of a step get as many categories.
            number: of the sample, different for all samples of a run.

        Returns:
            Indices into `trained.names`, int64 (T,), or None for all of them; and the labels as positions
            among these, int64 (R, R), -1 where ignored or not among them. Where more than T are present, T of
            those are chosen.
        """
        count = len(self.trained.names)
        found = np.append(self.trained.of_label, -1)[np.where(labels < 0, -1, labels)]
        if self.size is None:
            return None, found.astype(np.int64)
        size = self.size
        if self.vary:
            # Class attention must not get used to one number of categories.
            sizes = np.random.default_rng([self.seed, SIZES, step])
            size = max(1, int(sizes.integers(size // 2, size * 3 // 2 + 1)))
        size = min(count, size)
        present = np.unique(found[found >= 0])
        chosen = self.choose(present, size, np.random.default_rng([self.seed, CHOICES, number]))
        position = np.full(count + 1, -1, dtype=np.int64)
        position[chosen] = np.arange(size)
        return chosen, position[found]

    def choose(self, present: np.ndarray, size: int, random: np.random.Generator) -> np.ndarray:
        """`size` indices into the names: those present, then others, two thirds easily taken for those."""
        present = random.permutation(present)[:size]
        known = len(self.trained.alike)
        alike = [other for name in present if name < known for other in self.trained.alike[name]]
        likely = random.permutation(np.setdiff1d(np.array(alike, dtype=np.int64), present))
        chosen = np.concatenate([present, likely[: (size - len(present)) * 2 // 3]])
        others = random.permutation(np.setdiff1d(np.arange(len(self.trained.names)), chosen))
        return np.concatenate([chosen, others[: size - len(chosen)]]).astype(np.int64)


def confusable(name: str, position: dict[str, int]) -> tuple[int, ...]:
    """The same thing in other colours and other things in the same colour, where they may be trained on."""
    colour, _, thing = name.partition(" ")
    if colour not in COLOURS or thing not in THINGS:
        return ()
    alike = [f"{other} {thing}" for other in COLOURS] + [f"{colour} {other}" for other in THINGS]
    return tuple(position[other] for other in alike if other in position and other != name)
