"""`sed-trt evaluate`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .console import progress_bar

if TYPE_CHECKING:
    from ..benchmarks.scene_evaluation import SceneScores

SCENE_SIZE = 256


def evaluate(
    source: Annotated[Path, typer.Argument(help="A checkpoint file (runs PyTorch) or a bundle folder.")],
    scenes: Annotated[int, typer.Option(min=1, help="How many test scenes.")] = 200,
    rejection: Annotated[
        list[str] | None,
        typer.Option("--rejection", "-r", help="Policies to compare; by default topk:8 and none."),
    ] = None,
    vocabulary_size: Annotated[
        list[int] | None,
        typer.Option(help="Names to choose from, repeatable; by default 181, the scenes' own."),
    ] = None,
    backend: Annotated[str, typer.Option(help="Backend of a bundle.")] = "auto",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Also write the results as JSON.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the results as JSON.")] = False,
) -> None:
    """Measure mIoU on procedural test scenes, with and without early rejection.

    The larger vocabularies add names that no scene shows.

    Example: sed-trt evaluate bundle --vocabulary-size 181 --vocabulary-size 847 --rejection topk:8
    """
    from .extras import needs

    with needs("export"):
        from ..benchmarks.predictors import open_predictor
    from ..atomic import check_writable, replacing
    from ..benchmarks.scene_evaluation import evaluate_scenes
    from ..errors import InputError
    from ..paths import is_folder
    from ..runtime import parse_rejection
    from ..train.scenes import VOCABULARY, longer_vocabulary

    if output is not None:
        if is_folder(output):
            raise InputError(f"{output}: is a folder; name a file for the results")
        check_writable(output.parent)
    policies = {text: parse_rejection(text) for text in rejection or ["topk:8", "none"]}
    try:
        vocabularies = [longer_vocabulary(size) for size in vocabulary_size or [len(VOCABULARY)]]
    except ValueError as error:
        raise InputError(f"--vocabulary-size: {error}") from error
    rows: list[SceneScores] = []
    with progress_bar() as bar:
        task = bar.add_task("")

        def advance(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        for names in vocabularies:
            bar.update(task, description=f"embedding {len(names)} names")
            with needs("export"):
                predictors = open_predictor(source, names, backend, advance)
            for policy_text, policy in policies.items():
                bar.update(task, description=f"{len(names)} categories, rejection {policy_text}")
                predict = predictors(policy)
                rows.append(evaluate_scenes(predict, scenes, len(names), policy_text, SCENE_SIZE, advance))
    text = as_text(source, rows)
    # A disk that fills up meanwhile must not take the results with it.
    if as_json:
        print(text, end="")
    else:
        show(rows)
    if output is not None:
        with replacing(output) as temporary:
            temporary.write_text(text, encoding="utf-8")


def as_text(source: Path, rows: "list[SceneScores]") -> str:
    """The results file: what was measured, on what, with which versions."""
    import json
    import platform
    from dataclasses import asdict
    from importlib import metadata

    from .. import __version__

    content = {
        "source": source.name,
        "data": "procedural scenes, split test, first seeds",
        "size": SCENE_SIZE,
        "sed_trt": __version__,
        "numpy": metadata.version("numpy"),
        "pillow": metadata.version("pillow"),
        "machine": f"{platform.system()} {platform.machine()}",
        "results": [asdict(row) for row in rows],
    }
    return json.dumps(content, indent=1) + "\n"


def show(rows: "list[SceneScores]") -> None:
    """Print the results as a table."""
    from rich.console import Console
    from rich.table import Table

    headers = ("names", "rejection", "seen", "held-out", "all", "pixels", "alive after")
    # Without the outer frame every row fits into 80 columns.
    table = Table(*headers, title="mIoU in percent", show_edge=False, pad_edge=False)
    for row in rows:
        alive = " / ".join(f"{count:.0f}" for count in row.kept)
        figures = (row.miou_seen, row.miou_held_out, row.miou, row.pixel_accuracy)
        table.add_row(str(row.categories), row.rejection, *(f"{figure:.1f}" for figure in figures), alive)
    Console().print(table)
