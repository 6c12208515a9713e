"""How a phase of a training starts from its checkpoint and writes new ones."""

from typing import Any

import torch
from accelerate import Accelerator
from torch.amp import GradScaler

from ..model import SED
from .checkpoints import Point, load_random_states, load_state, points, save_checkpoint
from .config import TrainConfig
from .run_folder import RunFolder


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
