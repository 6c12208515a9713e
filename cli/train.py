"""`sed-trt train`."""

from pathlib import Path
from typing import Annotated

import typer

from .console import progress_bar


def train(
    preset: Annotated[str, typer.Option(help="sed-tiny, sed-b or sed-l.")] = "sed-tiny",
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The checkpoint to write; its log goes beside it.")
    ] = Path("runs/sed-tiny.safetensors"),
    init: Annotated[
        Path | None, typer.Option(help="Start from this checkpoint instead of random weights.")
    ] = None,
    text_steps: Annotated[int | None, typer.Option(min=0, help="Steps of the text pre-training.")] = None,
    clip_steps: Annotated[int | None, typer.Option(min=0, help="Steps of the CLIP pre-training.")] = None,
    steps: Annotated[int | None, typer.Option(min=0, help="Steps of the segmentation training.")] = None,
    batch: Annotated[int | None, typer.Option(min=1, help="Scenes per segmentation step.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of weights, scenes and samples.")] = 0,
    scenes: Annotated[
        int, typer.Option(min=0, help="Test scenes to evaluate on at the end; 0 for none.")
    ] = 200,
) -> None:
    """Train CLIP on captioned scenes, then SED on labelled ones, and print its mIoU.

    Example: sed-trt train --preset sed-tiny -o runs/sed-tiny.safetensors
    """
    from .extras import needs

    with needs("train"):
        from ..train.config import TrainConfig
        from ..train.run import train as run

    given = {"text_steps": text_steps, "clip_steps": clip_steps, "steps": steps, "batch": batch}
    chosen = {name: value for name, value in given.items() if value is not None}
    with progress_bar() as bar:
        task = bar.add_task("drawing the first scenes", total=None)

        def report(phase: str, done: int, total: int, metrics: dict[str, float]) -> None:
            text = " ".join(f"{name} {value:.3f}" for name, value in metrics.items())
            bar.update(task, description=f"{phase}: {text}", completed=done, total=total)

        run(TrainConfig(preset=preset, seed=seed, **chosen), output, init, report=report)
    print(f"checkpoint: {output}")
    if scenes:
        from .evaluate import evaluate

        evaluate(
            output,
            scenes=scenes,
            rejection=None,
            vocabulary_size=None,
            backend="auto",
            output=None,
            as_json=False,
        )
