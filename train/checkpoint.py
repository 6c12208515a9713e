"""The folder of a training run and its checkpoints, each complete or not there."""

import logging
import os
import re
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch.amp import GradScaler

from ..errors import InputError
from ..files import exists, is_file, is_folder, make_folder
from ..model import SED
from ..model.checkpoint import input_error_if_unreadable
from .config import TrainConfig, read_settings, recipe, write_settings

# In the order in which a run goes through them; "step" is the segmentation training.
PHASES = ("text", "clip", "step")
STATE = "state.pt"
_logger = logging.getLogger(__name__)
NAME = re.compile(rf"({'|'.join(PHASES)})-(\d+)")


@dataclass(frozen=True, order=True)
class Point:
    """A moment of a run: after `step` steps of its phase number `phase`."""

    phase: int
    step: int

    @property
    def folder(self) -> str:
        """The name of its checkpoint."""
        return f"{PHASES[self.phase]}-{self.step:06d}"


def points(folder: Path) -> list[Point]:
    """The moments of the complete checkpoints in `folder`, in order; it need not exist."""
    names = [path.name for path in folder.iterdir() if is_folder(path)] if is_folder(folder) else []
    found = (NAME.fullmatch(name) for name in names)
    return sorted(Point(PHASES.index(match[1]), int(match[2])) for match in found if match)


def save_checkpoint(
    folder: Path, point: Point, state: dict[str, Any], rank: int, wait: Callable[[], None], keep: int
) -> None:
    """Write the checkpoint of a moment from all processes together, and remove the oldest.

    What follows from the settings and the step, such as the learning rate and the order of the samples, is
    not in it. It gets its name once it is complete and on disk.

    Args:
        folder: of all checkpoints; it must exist.
        point: the moment.
        state: what is the same in all processes; process 0 writes it.
        rank: of this process.
        wait: returns once all processes have called it.
        keep: how many of the newest checkpoints stay.

    Raises:
        InputError: it cannot be written; the checkpoints before it stay as they are.
    """
    final = folder / point.folder
    partial = folder / f".{point.folder}.partial"
    try:
        if rank == 0:
            for left in folder.glob(".*.partial"):
                shutil.rmtree(left, ignore_errors=True)
            partial.mkdir()
            write(state, partial / STATE)
        wait()
        write(random_states(), partial / random_file(rank))
        wait()
        if rank == 0:
            sync_folder(partial)
            remove(final)
            partial.replace(final)
            sync_folder(folder)
    # PyTorch's own writer raises RuntimeError on top of what the file raised.
    except (OSError, RuntimeError) as error:
        with suppress(OSError):
            shutil.rmtree(partial)
        first = first_os_error(error)
        if first is None:
            raise
        before = [each.folder for each in points(folder)]
        kept = f"{before[-1]} is whole" if before else "there is none before it"
        raise InputError(
            f"{final}: the checkpoint cannot be written ({first.strerror}); {kept}; make room and go on "
            "with --resume"
        ) from error
    if rank == 0:
        for old in points(folder)[:-keep]:
            remove(folder / old.folder)


def remove(checkpoint: Path) -> None:
    """Remove a checkpoint's folder, if there is one; what an interruption leaves of it has another name."""
    doomed = checkpoint.with_name(f".{checkpoint.name}.old.partial")
    with suppress(OSError):
        checkpoint.replace(doomed)
        shutil.rmtree(doomed)


def load_state(folder: Path, point: Point) -> dict[str, Any]:
    """The state saved at a moment.

    Raises:
        InputError: its file is missing or damaged.
    """
    return read(folder / point.folder / STATE)


def load_random_states(folder: Path, point: Point, rank: int, processes: int) -> None:
    """Let the random numbers of process `rank` of `processes` go on from a moment.

    Raises:
        InputError: its file is damaged.
    """
    checkpoint = folder / point.folder
    path, written = checkpoint / random_file(rank), len(list(checkpoint.glob(random_file("*"))))
    if written != processes and rank == 0:
        _logger.warning(
            "%s: has the random numbers of %d processes, and %d run now: the run goes on, but not to the bit",
            *(checkpoint, written, processes),
        )
    if is_file(path):
        restore_random_states(read(path))


def random_file(rank: int | str) -> str:
    """Where a process keeps the states of its random numbers."""
    return f"random-{rank}.pt"


def random_states() -> dict[str, Any]:
    """The states of PyTorch's generators of this process; nothing here draws from Python's or NumPy's own."""
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
    }


def restore_random_states(states: dict[str, Any]) -> None:
    """Put the generators of this process into the states of `random_states`."""
    torch.set_rng_state(states["torch"])
    if states["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"])


def write(content: dict[str, Any], path: Path) -> None:
    """Write with PyTorch, and wait until it is on disk."""
    with path.open("wb") as file:
        torch.save(content, file)
        file.flush()
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Wait until the names in a folder are on disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read(path: Path) -> dict[str, Any]:
    """What `write` wrote, on the CPU.

    Raises:
        InputError: the file is missing or damaged.
    """
    with input_error_if_unreadable(path, "remove its folder to go on from the checkpoint before"):
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return content


def first_os_error(error: BaseException | None) -> OSError | None:
    """The operating system's error that an exception goes back to, if any."""
    while error is not None and not isinstance(error, OSError):
        error = error.__cause__ or error.__context__
    return error


# What may change when a run goes on: none of it reaches the training.
CHANGEABLE = ("root", "workers", "log_every", "picture_every", "save_every", "keep", "half")


class RunFolder:
    """Where each thing of a run is; making one touches nothing.

    Attributes:
        path: the folder.
        settings: all settings, as YAML.
        log: metrics as JSON lines.
        tensorboard: metrics and pictures for TensorBoard.
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
        self.weights = path / "model.safetensors"

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
        if points(self.checkpoints):
            raise InputError(
                f"{self.checkpoints}: holds checkpoints of a run whose {self.settings.name} is gone; "
                "name another folder"
            )

    def check_same(self, config: TrainConfig) -> None:
        """Refuse to go on in this folder with settings that its run was not begun with.

        Raises:
            InputError: no run is in it, or a setting that reaches the weights differs.
        """
        # What its file leaves out is the recipe's.
        begun = asdict(recipe(**{"preset": config.preset, **begun_settings(self.path)}))
        wanted = asdict(config)
        for name, value in wanted.items():
            if value != begun[name] and name not in CHANGEABLE:
                raise InputError(
                    f"{self.path}: was begun with {name} {begun[name]}, not {value}; leave {name} out, "
                    "or begin another run"
                )

    def write(self, config: TrainConfig) -> None:
        """Make the folder and write its settings.

        Raises:
            InputError: it cannot be made or written.
        """
        make_folder(self.path)
        make_folder(self.checkpoints)
        write_settings(config, self.settings)


def begun_settings(path: Path) -> dict[str, Any]:
    """The settings that the run in a folder was begun with.

    Raises:
        InputError: no run is in it.
    """
    settings = RunFolder(path).settings
    if not is_file(settings):
        raise InputError(f"{path}: holds no run to go on with; leave out --resume to begin one")
    return read_settings(settings)


class Saving:
    """The checkpoints of a run, as one of its processes sees them.

    Attributes:
        newest: the moment the run goes on from; the start where there is no checkpoint.
        state: what the checkpoint of that moment holds; None where there is none, or once it is restored.
        seconds: how long the run had taken until then.
    """

    def __init__(self, run: RunFolder, config: TrainConfig, accelerator: Accelerator) -> None:
        """Look for the newest checkpoint.

        Args:
            run: the folder.
            config: the run's settings.
            accelerator: of the run.

        Raises:
            InputError: the newest checkpoint is damaged.
        """
        self.folder, self.keep, self.accelerator = run.checkpoints, config.keep, accelerator
        found = points(self.folder)
        self.newest = found[-1] if found else Point(0, 0)
        self.state: dict[str, Any] | None = load_state(self.folder, found[-1]) if found else None
        self.seconds: float = self.state["seconds"] if self.state else 0.0

    def restore(self, phase: int, optimizer: torch.optim.Optimizer, scaler: GradScaler | None = None) -> int:
        """Bring the phase that the run goes on in to where it was, but for the network; leave others.

        Returns:
            How many of the phase's steps are done.

        Raises:
            InputError: the checkpoint is damaged.
        """
        if self.state is None or self.newest.phase != phase:
            return 0
        optimizer.load_state_dict(self.state["optimizer"])
        if scaler is not None and self.state["scaler"]:
            scaler.load_state_dict(self.state["scaler"])
        load_random_states(
            self.folder, self.newest, self.accelerator.process_index, self.accelerator.num_processes
        )
        self.state = None
        return self.newest.step

    def save(
        self,
        point: Point,
        model: SED,
        optimizer: torch.optim.Optimizer,
        scaler: GradScaler | None,
        seconds: float,
    ) -> None:
        """Write the checkpoint of a moment; every process of the run calls this.

        Raises:
            InputError: it cannot be written.
        """
        state = {
            "model": model.state_dict(),
            "optimizer": optimizer.state_dict(),
            "scaler": scaler.state_dict() if scaler is not None else None,
            "seconds": seconds,
        }
        rank, wait = self.accelerator.process_index, self.accelerator.wait_for_everyone
        save_checkpoint(self.folder, point, state, rank, wait, self.keep)
