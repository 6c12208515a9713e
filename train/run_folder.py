"""The folder of a training run."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..atomic import make_folder
from ..errors import InputError
from ..paths import exists, is_file, is_folder
from .checkpoints import points
from .config import TrainConfig, recipe
from .settings import read_settings, write_settings

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
