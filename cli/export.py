"""`sed-trt export`."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import InputError
from ..files import exists, is_folder
from .console import needs, progress_bar
from .segment import expand_inputs

if TYPE_CHECKING:
    import numpy as np

    from ..export import Check

CALIBRATION_IMAGES = 16
# Pixels: that of the network's input is used whatever the side of an image.
SCENE_SIDE = 512
# Pixels of the shorter side that `segment` resizes images to, if not told otherwise.
SHORT_SIDE = 640


def export(
    checkpoint: Annotated[
        Path, typer.Argument(help="A published .pth file, or a .safetensors file of sed-trt.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the bundle to write.")],
    preset: Annotated[
        str | None, typer.Option(help="sed-b, sed-l or sed-tiny; by default read from the checkpoint.")
    ] = None,
    precision: Annotated[
        str,
        typer.Option(
            help="Precision of the graphs: fp32, fp16 or bf16; sums, norms and heads stay FP32 in all. "
            "int8 is for the CPU: 8-bit products in the image tower, the rest FP32, or BF16 on AMX."
        ),
    ] = "fp32",
    calibration: Annotated[
        Path | None,
        typer.Option(
            help="For int8: a folder of images like those that will be segmented, from which the ranges of "
            f"8-bit values are taken ({CALIBRATION_IMAGES} of them, evenly spread); by default procedural "
            "scenes.",
            show_default=False,
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the checks as JSON.")] = False,
) -> None:
    """Export a checkpoint to a bundle and verify each stage against PyTorch in FP32 on a photo.

    Example: sed-trt export checkpoints/sed-tiny.safetensors -o bundle --precision fp16
    """
    with needs("export"):
        from ..export import VerificationError, export_bundle

    images = None
    if precision == "int8" or calibration is not None:
        images = calibration_images(calibration)
    with progress_bar() as bar:
        task = bar.add_task("reading the checkpoint", total=None)
        try:
            checks = export_bundle(
                checkpoint,
                output,
                preset,
                progress=lambda step, done, total: bar.update(
                    task, description=step, completed=done, total=total
                ),
                precision=precision,
                calibration=images,
            )
        except VerificationError as error:
            show(error.checks, as_json)
            raise
    show(checks, as_json)
    if not as_json:
        print(f"bundle: {output}")


def calibration_images(folder: Path | None) -> "list[np.ndarray]":
    """Images, uint8 (H, W, 3), of a folder, evenly spread over it; scenes where none is given.

    Raises:
        InputError: the folder is not there, holds no images, or one cannot be read.
    """
    from ..runtime.images import load_image, resize_short_side
    from ..train.scenes import make_scene

    if folder is None:
        return [make_scene(seed, SCENE_SIDE, split="train").image for seed in range(CALIBRATION_IMAGES)]
    if not is_folder(folder):
        problem = "is a file" if exists(folder) else "no such folder"
        raise InputError(f"--calibration {folder}: {problem}; give a folder of images")
    files = expand_inputs([str(folder)])
    count = min(len(files), CALIBRATION_IMAGES)
    chosen = [files[number * len(files) // count] for number in range(count)]
    # As `segment` prepares images: the ranges depend on the filter.
    return [resize_short_side(load_image(file), SHORT_SIDE) for file in chosen]


def show(checks: "list[Check]", as_json: bool) -> None:
    """Print the checks as a table or as JSON."""
    from rich.console import Console
    from rich.table import Table

    if as_json:
        print(json.dumps([{**asdict(check), "passed": check.passed} for check in checks], indent=1))
        return
    table = Table("stage", "output", "error", "limit", "measured as", "")
    for check in checks:
        verdict = "ok" if check.passed else "[bold red]over"
        table.add_row(
            check.stage, check.output, f"{check.error:.2g}", f"{check.limit:.2g}", check.measure, verdict
        )
    Console().print(table)
