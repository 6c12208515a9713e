"""The folder of a training run and its checkpoints, each complete or not there."""

import logging
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from enum import IntEnum
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import torch
from accelerate import Accelerator
from accelerate.checkpointing import load_accelerator_state, save_accelerator_state
from accelerate.utils import RNG_STATE_NAME
from safetensors.torch import load_file

from ..errors import InputError
from ..files import exists, is_file, is_folder, make_folder
from ..model import SED
from ..model.checkpoint import input_error_if_unreadable, save
from .config import TrainConfig, read_settings, recipe, write_settings

# What may change when a run resumes: none of it reaches the training.
CHANGEABLE = ("root", "workers", "log_every", "picture_every", "save_every", "keep", "half")
# Ending of a checkpoint's name while it is written or removed.
PARTIAL = ".partial"
WEIGHTS = "model.safetensors"
REMOVE = "remove this checkpoint to resume from the one before"
# Part of the errors of PyTorch's writer, which leave out the operating system's reason.
TORCH_WRITER = "inline_container"
_logger = logging.getLogger(__name__)


class Phase(IntEnum):
    """The phases of a run, in order; `STEP` is the segmentation training."""

    TEXT = 0
    CLIP = 1
    STEP = 2

    @property
    def label(self) -> str:
        """Its name in files, logs and settings."""
        return self.name.lower()


class Position(NamedTuple):
    """How far a run is: after `step` steps of a phase."""

    phase: Phase
    step: int

    @property
    def folder(self) -> str:
        """The name of the checkpoint that is written there."""
        return f"{self.phase.label}-{self.step:06d}"


START = Position(Phase.TEXT, 0)
FOLDER_NAME = re.compile(rf"({'|'.join(phase.label for phase in Phase)})-(\d+)")


def positions(folder: Path) -> list[Position]:
    """The positions of the complete checkpoints in `folder`, in order; the folder need not exist."""
    names = [path.name for path in folder.iterdir() if is_folder(path)] if is_folder(folder) else []
    matches = (FOLDER_NAME.fullmatch(name) for name in names)
    return sorted(Position(Phase[match[1].upper()], int(match[2])) for match in matches if match)


class RunFolder:
    """Where everything of a run is; making one touches no file.

    Attributes:
        path: the folder.
        settings: all settings, as YAML.
        log: metrics as JSON lines.
        tensorboard: metrics and images for TensorBoard.
        checkpoints: one folder for each.
        clip: the pre-trained CLIP, where there is a pre-training.
        weights: the trained network.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.settings = path / "config.yaml"
        self.log = path / "log.jsonl"
        self.tensorboard = path / "tensorboard"
        self.checkpoints = path / "checkpoints"
        self.clip = path / "clip.safetensors"
        self.weights = path / WEIGHTS

    def check_new(self) -> None:
        """Refuse to train into this folder from the start.

        Raises:
            InputError: a run is in it, or it is no folder.
        """
        if self.path.suffix == ".safetensors":
            raise InputError(
                f"{self.path}: a run is a folder, which gets {self.weights.name}; "
                f"name it {self.path.with_suffix('')}"
            )
        if exists(self.path) and not is_folder(self.path):
            raise InputError(f"{self.path}: is a file; a run is a folder, name another")
        if is_file(self.settings):
            raise InputError(f"{self.path}: holds a run already; go on with --resume, or name another folder")
        if positions(self.checkpoints):
            raise InputError(
                f"{self.checkpoints}: holds checkpoints of a run whose {self.settings.name} is gone; "
                "name another folder"
            )

    def read(self) -> dict[str, Any]:
        """The settings that the run was started with.

        Raises:
            InputError: no run is in the folder.
        """
        if not is_file(self.settings):
            raise InputError(f"{self.path}: holds no run to go on with; leave out --resume to start one")
        return read_settings(self.settings)

    def check_same(self, config: TrainConfig) -> None:
        """Refuse to resume the run in this folder with other settings than it was started with.

        Raises:
            InputError: no run is in it, or a setting that reaches the weights differs.
        """
        # A setting that its file leaves out is the recipe's.
        started = recipe(**{"preset": config.preset, **self.read()})
        for name, value in msgspec.structs.asdict(config).items():
            if value != getattr(started, name) and name not in CHANGEABLE:
                raise InputError(
                    f"{self.path}: was started with {name} {getattr(started, name)}, not {value}; "
                    f"leave {name} out, or start another run"
                )

    def write(self, config: TrainConfig) -> None:
        """Make the folder, write the settings, and delete incomplete checkpoints of an interruption.

        Raises:
            InputError: it cannot be made or written.
        """
        make_folder(self.path)
        make_folder(self.checkpoints)
        for path in self.checkpoints.glob(f".*{PARTIAL}"):
            shutil.rmtree(path, ignore_errors=True)
        write_settings(config, self.settings)


class Checkpoints:
    """The checkpoints of a run, as one of its processes sees them.

    Each is a folder with the network, a SED checkpoint like any other, and, as Accelerate writes them, the
    states of the optimizer, of FP16's gradient scaler and of every process's random numbers. What follows
    from the settings and the step, such as the learning rate and the order of the samples, is not stored.

    Attributes:
        newest: where the run resumes; None where it starts.
    """

    def __init__(self, folder: Path, keep: int, accelerator: Accelerator) -> None:
        """Look for the newest checkpoint.

        Args:
            folder: of all checkpoints; it need not exist yet.
            keep: how many of the newest stay when another is written.
            accelerator: of the run.
        """
        self.folder, self.keep, self.accelerator = folder, keep, accelerator
        self.newest = max(positions(folder), default=None)

    def load_weights(self, model: SED) -> None:
        """Give `model` the weights of the newest checkpoint.

        Raises:
            InputError: they are missing or damaged.
        """
        path = self._newest_folder / WEIGHTS
        with input_error_if_unreadable(path, REMOVE):
            model.load_state_dict(load_file(path))

    def restore(self, phase: Phase, optimizer: torch.optim.Optimizer) -> int:
        """Bring optimizer, scaler and random numbers to where they were, if the run resumes in `phase`.

        Returns:
            How many of the phase's steps are done.

        Raises:
            InputError: the checkpoint is damaged.
        """
        if self.newest is None or self.newest.phase != phase:
            return 0
        folder, rank = self._newest_folder, self.accelerator.process_index
        with input_error_if_unreadable(folder, REMOVE):
            restored = load_accelerator_state(
                folder,
                models=[],
                optimizers=[optimizer],
                schedulers=[],
                dataloaders=[],
                process_index=rank,
                scaler=self.accelerator.scaler,
            )
        random_numbers = folder / _random_file(rank)
        # Accelerate passes over errors of this file.
        if not restored and is_file(random_numbers):
            raise InputError(f"{random_numbers}: cannot be read; {REMOVE}")
        written, processes = len(list(folder.glob(_random_file("*")))), self.accelerator.num_processes
        if written != processes and self.accelerator.is_main_process:
            _logger.warning(
                "%s: has the random numbers of %d processes, but %d run: the run does not resume bit-exactly",
                *(folder, written, processes),
            )
        return self.newest.step

    def save(self, position: Position, model: SED, optimizer: torch.optim.Optimizer) -> None:
        """Write the checkpoint of a position from all processes together, and remove the oldest.

        It gets its name once it is complete and on disk.

        Raises:
            InputError: it cannot be written; the checkpoints before it stay as they are.
        """
        final = self.folder / position.folder
        partial = self.folder / f".{position.folder}{PARTIAL}"
        rank, is_main = self.accelerator.process_index, self.accelerator.is_main_process
        with self._writing(partial, final):
            partial.mkdir(exist_ok=True)
            if is_main:
                save(model, partial / WEIGHTS)
            save_accelerator_state(
                str(partial),
                model_states=[],
                optimizers=[optimizer],
                schedulers=[],
                dataloaders=[],
                process_index=rank,
                step=position.step,
                # All processes have the same, and would write it to one file at once.
                scaler=self.accelerator.scaler if is_main else None,
            )
            for path in partial.glob("*" if is_main else _random_file(rank)):
                _sync(path)
        self.accelerator.wait_for_everyone()
        if is_main:
            with self._writing(partial, final):
                _sync(partial)
                partial.replace(final)
                _sync(self.folder)
            for old in positions(self.folder)[: -self.keep]:
                _remove(self.folder / old.folder)

    @contextmanager
    def _writing(self, partial: Path, final: Path) -> Iterator[None]:
        """Turn a writer's error into one line, and remove what it wrote."""
        try:
            yield
        except (OSError, RuntimeError, InputError) as error:
            shutil.rmtree(partial, ignore_errors=True)
            cause = error.__cause__ or error
            reason = (cause.strerror if isinstance(cause, OSError) else None) or str(cause)
            if isinstance(error, RuntimeError):
                if TORCH_WRITER not in str(error):
                    raise
                reason = "PyTorch's writer failed, as it does on a full disk"
            newest = max(positions(self.folder), default=None)
            before = "there is none before it" if newest is None else f"{newest.folder} is whole"
            raise InputError(
                f"{final}: the checkpoint cannot be written ({reason}); {before}; make room and go on "
                "with --resume"
            ) from error

    @property
    def _newest_folder(self) -> Path:
        assert self.newest is not None
        return self.folder / self.newest.folder


def _remove(checkpoint: Path) -> None:
    """Remove a checkpoint's folder under another name, so that an interruption leaves no half of one."""
    renamed = checkpoint.with_name(f".{checkpoint.name}.old{PARTIAL}")
    with suppress(OSError):
        checkpoint.replace(renamed)
        shutil.rmtree(renamed)


def _random_file(rank: int | str) -> str:
    """The name under which Accelerate keeps the states of a process's random numbers."""
    return f"{RNG_STATE_NAME}_{rank}.pkl"


def _sync(path: Path) -> None:
    """Wait until a file's content, or the names in a folder, are on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
