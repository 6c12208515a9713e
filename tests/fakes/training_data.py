"""What tests of the training share: a small own data set, and a recipe small enough for a test."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from sed_trt.train.config import TrainConfig, recipe

NAMES = ("sky", "grass", "brick wall", "car", "tree")
TORCHRUN = ("torch.distributed.run", "--standalone", "--nproc-per-node")
ACCELERATE = ("accelerate.commands.launch", "--multi_gpu", "--num_processes")


def write_own_data(folder: Path, count: int = 6, side: int = 40) -> Path:
    """Write images of noise whose labels are stripes, one of them wider than high, some pixels ignored."""
    random = np.random.default_rng(0)
    for name in ("images", "labels"):
        (folder / name).mkdir(parents=True)
    for index in range(count):
        shape = (side, side + 8 * index)
        labels = np.broadcast_to(np.arange(shape[1]) * len(NAMES) // shape[1], shape).astype(np.uint8).copy()
        labels[0] = 255
        image = (random.integers(0, 60, (*shape, 3)) + labels[..., None].clip(0, 4) * 40).astype(np.uint8)
        Image.fromarray(image).save(folder / "images" / f"{index}.png")
        Image.fromarray(labels).save(folder / "labels" / f"{index}.png")
    (folder / "names.txt").write_text("\n".join(NAMES) + "\n")
    return folder


def small(data: Path | str, **changes: Any) -> TrainConfig:
    """sed-tiny on crops of 32 pixels, without pre-training: a step takes hundredths of a second."""
    settings: dict[str, Any] = {
        "data": str(data),
        "text_steps": 0,
        "clip_steps": 0,
        "crop": 32,
        "short_side": 36,
        "target_size": None,
        "flip": True,
        "colour": True,
        "categories": 3,
        "steps": 4,
        "batch": 2,
        "workers": 0,
        "log_every": 1,
        "half": False,
    }
    return recipe("sed-tiny", **(settings | changes))


def options_of(config: TrainConfig, path: Path) -> list[str]:
    """The command line's options for a configuration, which is written to `path`."""
    from sed_trt.train.config import write_settings

    write_settings(config, path)
    return ["train", "--config", str(path), "--gpus", "0"]


def start(
    arguments: list[str], processes: int = 1, launcher: tuple[str, ...] = TORCHRUN
) -> subprocess.Popen[str]:
    """Run the command line in a process of its own, or through a launcher in several; one thread each."""
    launched = [*launcher, str(processes), "-m"] if processes > 1 else []
    command = [sys.executable, "-m", *launched, "sed_trt.cli.main", *arguments]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
