"""The samples of a training run: each is a function of the seed and its number alone."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler
from torch.utils.data import Dataset as TorchDataset

from ..errors import InputError
from .augmentation import augmented
from .config import TrainConfig
from .datasets import Dataset, Scenes, open_dataset
from .scenes import COLOURS, SEEN, THINGS, VOCABULARY, longer_vocabulary

# Names that no scene shows, so that the network learns to want none of them. It is tested with vocabularies
# of up to 847 names, which hold none of these.
ABSENT = longer_vocabulary(1205)[847:]
# Streams of random numbers, apart from each other and from those of the pre-training.
SIZES, CHOICES, ORDER, AUGMENTATION = 5, 6, 7, 8


@dataclass(frozen=True)
class TrainedNames:
    """The names that a training tells apart.

    Attributes:
        names: all of them.
        of_label: by label of the data set, the index of its name, int64; -1 where it is not trained.
        alike: for each of the first names, the indices of those that are easily confused with it; empty, or
            missing at the end, where there are none.
    """

    names: tuple[str, ...]
    of_label: np.ndarray
    alike: tuple[tuple[int, ...], ...] = ()


def open_training_data(config: TrainConfig) -> tuple[Dataset, TrainedNames]:
    """The data set that is trained on, and the names to tell apart in it.

    Raises:
        InputError: it is missing, or has no samples.
    """
    if config.data == "scenes":
        count = max(1, config.steps * config.batch)
        scenes = Scenes(split="train", length=count, size=config.crop, first_seed=config.seed * count)
        return scenes, scene_names()
    dataset = open_dataset(config.data, "train", Path(config.root) if config.root else None)
    if not len(dataset):
        raise InputError(f"{config.data}: its split train has no images; see `sed-trt data check`")
    return dataset, plain_names(dataset.names)


def plain_names(names: Sequence[str]) -> TrainedNames:
    """The names of a data set, all of which are trained."""
    return TrainedNames(tuple(names), np.arange(len(names)))


def scene_names() -> TrainedNames:
    """The names of the scenes without held-out pairs, and names that no scene shows."""
    names = (*SEEN, *ABSENT)
    position = {name: index for index, name in enumerate(names)}
    of_label = np.array([position.get(name, -1) for name in VOCABULARY])
    return TrainedNames(names, of_label, tuple(confusable(name, position) for name in SEEN))


def confusable(name: str, position: dict[str, int]) -> tuple[int, ...]:
    """The same thing in other colours, and other things in the same colour.

    Args:
        name: a name of the scenes.
        position: index by name of all trained names; others are left out of the result.

    Returns:
        Indices, none for names without a colour.
    """
    colour, _, thing = name.partition(" ")
    if colour not in COLOURS or thing not in THINGS:
        return ()
    alike = [f"{other} {thing}" for other in COLOURS] + [f"{colour} {other}" for other in THINGS]
    return tuple(position[other] for other in alike if other in position and other != name)


class CategorySampler:
    """Chooses each sample's categories: those present, ones easily confused with them, and any others.

    The choice is a function of the seed, the step and the sample's number alone.
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
        names = np.append(self.trained.of_label, -1)[np.where(labels < 0, -1, labels)]
        if self.size is None:
            return None, names.astype(np.int64)
        size = self.size
        if self.vary:
            # Class attention must not get used to one number of categories.
            sizes = np.random.default_rng([self.seed, SIZES, step])
            size = max(1, int(sizes.integers(size // 2, size * 3 // 2 + 1)))
        size = min(count, size)
        present = np.unique(names[names >= 0])
        chosen = self.choose(present, size, np.random.default_rng([self.seed, CHOICES, number]))
        position = np.full(count + 1, -1, dtype=np.int64)
        position[chosen] = np.arange(size)
        return chosen, position[names]

    def choose(self, present: np.ndarray, size: int, random: np.random.Generator) -> np.ndarray:
        """`size` indices into the names: those present, then others, of which up to two thirds are easily
        confused with those.
        """
        present = random.permutation(present)[:size]
        known = len(self.trained.alike)
        alike = [other for name in present if name < known for other in self.trained.alike[name]]
        likely = random.permutation(np.setdiff1d(np.array(alike, dtype=np.int64), present))
        chosen = np.concatenate([present, likely[: (size - len(present)) * 2 // 3]])
        others = random.permutation(np.setdiff1d(np.arange(len(self.trained.names)), chosen))
        return np.concatenate([chosen, others[: size - len(chosen)]]).astype(np.int64)


@dataclass(frozen=True, eq=False)
class Batch:
    """Samples that go through the network together.

    Attributes:
        images: RGB uint8 (B, S, S, 3).
        targets: int64 (B, R, R), positions among the categories, -1 where there is none.
        chosen: the categories of each sample among the trained names, int64 (B, T); None means all.
    """

    images: Tensor
    targets: Tensor
    chosen: Tensor | None

    def pin_memory(self) -> "Batch":
        """The batch in memory that a GPU copies from while it computes; PyTorch's loader calls this."""
        chosen = None if self.chosen is None else self.chosen.pin_memory()
        return Batch(self.images.pin_memory(), self.targets.pin_memory(), chosen)

    def to(self, device: torch.device) -> "Batch":
        """The batch on a device."""
        chosen = None if self.chosen is None else self.chosen.to(device, non_blocking=True)
        images = self.images.to(device, non_blocking=True)
        return Batch(images, self.targets.to(device, non_blocking=True), chosen)


class TrainingSamples(TorchDataset[tuple[np.ndarray, ...] | InputError]):
    """Sample `number` of a run is at place number % batch of step number // batch.

    An item is an image, uint8 (S, S, 3), a target, int64 (R, R), and the categories, int64 (T,), if they are
    chosen for each sample. A broken file gives the error as an item: PyTorch would wrap an exception from a
    worker in its own words.
    """

    def __init__(self, dataset: Dataset, sampler: CategorySampler, config: TrainConfig) -> None:
        self.dataset, self.sampler, self.config = dataset, sampler, config
        self.epoch, self.order = -1, np.arange(0)

    def __getitem__(self, number: int) -> tuple[np.ndarray, ...] | InputError:
        config = self.config
        try:
            sample = self.dataset[self.index(number)]
        except InputError as error:
            return error
        sample = augmented(sample, config, np.random.default_rng([config.seed, AUGMENTATION, number]))
        stride = config.crop // (config.target_size or config.crop)
        labels = sample.labels[stride // 2 :: stride, stride // 2 :: stride]
        chosen, targets = self.sampler.draw(labels, number // config.batch, number)
        return (sample.image, targets) if chosen is None else (sample.image, targets, chosen)

    def index(self, number: int) -> int:
        """Which sample of the data set it is; every pass goes through all of them in an order of its own."""
        epoch, place = divmod(number, len(self.dataset))
        if epoch != self.epoch:
            random = np.random.default_rng([self.config.seed, ORDER, epoch])
            self.epoch, self.order = epoch, random.permutation(len(self.dataset))
        return int(self.order[place])

    def identity(self, number: int) -> str:
        """What messages call the sample."""
        return self.dataset.identity(self.index(number))


def micro_batch(config: TrainConfig, step: int, rank: int, processes: int, number: int) -> range:
    """The numbers of the samples that process `rank` takes in its micro-batch `number` of a step."""
    size = config.batch // (processes * config.accumulate)
    start = step * config.batch + (rank * config.accumulate + number) * size
    return range(start, start + size)


class MicroBatches(Sampler[list[int]]):
    """The numbers of the samples of each micro-batch of one process, from the step `first` on."""

    def __init__(self, config: TrainConfig, first: int, rank: int, processes: int) -> None:
        self.config, self.first, self.rank, self.processes = config, first, rank, processes

    def __len__(self) -> int:
        return (self.config.steps - self.first) * self.config.accumulate

    def __iter__(self) -> Iterator[list[int]]:
        for step in range(self.first, self.config.steps):
            for number in range(self.config.accumulate):
                yield list(micro_batch(self.config, step, self.rank, self.processes, number))


def training_batches(
    samples: TrainingSamples, first: int, rank: int, processes: int, pin: bool
) -> Iterator[Batch]:
    """The micro-batches of one process from the step `first` on, prefetched by the configuration's workers.

    Raises:
        InputError: a sample's files are broken.
    """
    loader = prefetching_loader(
        samples,
        samples.config.workers,
        prefetch=4,
        batch_sampler=MicroBatches(samples.config, first, rank, processes),
        collate_fn=collated,
        pin_memory=pin,
    )
    for batch in loader:
        if isinstance(batch, InputError):
            raise batch
        yield batch


def collated(items: Sequence[tuple[np.ndarray, ...] | InputError]) -> Batch | InputError:
    """One batch of samples, or the first error among them."""
    samples = []
    for item in items:
        if isinstance(item, InputError):
            return item
        samples.append(item)
    images, targets, *chosen = (torch.from_numpy(np.stack(each)) for each in zip(*samples, strict=True))
    return Batch(images, targets, chosen[0] if chosen else None)


def prefetching_loader(
    dataset: TorchDataset[Any], workers: int, prefetch: int, **options: Any
) -> DataLoader[Any]:
    """PyTorch's loader with `options`, whose `workers` processes keep `prefetch` batches each ready."""
    return DataLoader(
        dataset,
        num_workers=workers,
        worker_init_fn=use_one_thread if workers else None,
        prefetch_factor=prefetch if workers else None,
        # Its own random numbers, which only seed the workers', must leave the global ones alone.
        generator=torch.Generator(),
        **options,
    )


def use_one_thread(_worker: int) -> None:
    """Leave the other cores to the training."""
    torch.set_num_threads(1)
