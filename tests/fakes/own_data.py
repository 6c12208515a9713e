"""A small set of own data, and evaluations of it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sed_trt.cli.main import main
from sed_trt.train.scenes import VOCABULARY, make_scene

IMAGES = 10


def write_own(folder: Path, images: int = IMAGES) -> Path:
    """Scenes as own data, of several sizes, with some pixels not scored; the names are those that occur."""
    (folder / "images").mkdir(parents=True)
    (folder / "labels").mkdir()
    scenes = [make_scene(index, 128, split="test") for index in range(images)]
    occurring = np.unique([scene.labels for scene in scenes])
    (folder / "names.txt").write_text("\n".join(VOCABULARY[index] for index in occurring))
    for index, scene in enumerate(scenes):
        labels = np.searchsorted(occurring, scene.labels).astype(np.uint8)
        labels[:10] = 255
        width = 128 - 7 * index
        Image.fromarray(scene.image[:, :width]).save(folder / "images" / f"{index}.png")
        Image.fromarray(labels[:, :width]).save(folder / "labels" / f"{index}.png")
    return folder


def names_of(folder: Path) -> list[str]:
    """The names of own data."""
    return (folder / "names.txt").read_text().splitlines()


def evaluated(output: Path, *arguments: object) -> dict[str, Any]:
    """The results file of a run that must succeed."""
    assert main(["evaluate", *map(str, arguments), "--output", str(output)]) == 0
    return json.loads(output.read_text())


def failed(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The last line on stderr of a command that exits with 2."""
    assert main(["evaluate", *map(str, arguments)]) == 2
    return capsys.readouterr().err.splitlines()[-1]
