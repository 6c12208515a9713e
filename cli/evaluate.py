"""`sed-trt evaluate`."""

from pathlib import Path
from typing import Annotated

import typer

from .console import print_error, progress_bar
from .deliver import deliver

DATA = ("scenes",)


def evaluate(
    source: Annotated[Path, typer.Argument(help="A checkpoint file (runs PyTorch) or a bundle folder.")],
    against: Annotated[
        Path | None, typer.Option(help="Another one to compare with: mIoU, agreement, stage by stage.")
    ] = None,
    max_drop: Annotated[
        float | None,
        typer.Option(help="Exit with 1 when the mIoU is lower than that of --against by more points."),
    ] = None,
    layerwise: Annotated[
        str | None,
        typer.Option(help="Instead, name the tensors of a checkpoint that lose most in fp16 or bf16."),
    ] = None,
    data: Annotated[str, typer.Option(help="What to label: scenes.")] = "scenes",
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
    emulate: Annotated[
        bool,
        typer.Option(help="Where only the CPU runs a half-precision bundle, round after every operator."),
    ] = True,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Also write the results as JSON.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the results as JSON.")] = False,
) -> None:
    """Measure mIoU on procedural test scenes, with and without early rejection, alone or against another one.

    The larger vocabularies add names that no scene shows.

    Example: sed-trt evaluate bundle --vocabulary-size 181 --vocabulary-size 847 --rejection topk:8

    Example: sed-trt evaluate bundle-fp16 --against bundle --max-drop 0.1
    """
    from ..atomic import check_writable
    from ..errors import InputError
    from ..paths import is_folder
    from .extras import needs

    if data not in DATA:
        raise InputError(f"--data: {data!r} is unknown; choose one of {', '.join(DATA)}")
    if max_drop is not None and against is None:
        raise InputError("--max-drop: compares with another one; name it with --against")
    if layerwise is not None and against is not None:
        raise InputError("--layerwise: compares a checkpoint with itself; leave out --against")
    if output is not None:
        if is_folder(output):
            raise InputError(f"{output}: is a folder; name a file for the results")
        check_writable(output.parent)
    with needs("export"):
        from ..benchmarks.evaluation import Task, compare, measure, name_worst
    from ..runtime import parse_rejection
    from ..train.scenes import VOCABULARY, longer_vocabulary
    from .evaluation_tables import show

    policies = {text: parse_rejection(text) for text in rejection or ["topk:8", "none"]}
    try:
        vocabularies = [longer_vocabulary(size) for size in vocabulary_size or [len(VOCABULARY)]]
    except ValueError as error:
        raise InputError(f"--vocabulary-size: {error}") from error
    wanted = Task(vocabularies, policies, scenes, backend, emulate)
    with progress_bar() as bar, needs("export"):
        task = bar.add_task("")

        def report(what: str, done: int, total: int) -> None:
            bar.update(task, description=what, completed=done, total=total)

        if layerwise is not None:
            kind, content = "layerwise", name_worst(source, layerwise, report)
        elif against is not None:
            kind, content = "parity", compare(source, against, wanted, report)
        else:
            kind, content = "scores", measure(source, wanted, report)
    deliver(kind, content, show, output, as_json)
    if max_drop is not None:
        drop = max(row["drop"] for row in content["results"])
        if drop > max_drop:
            print_error(
                f"{source}: its mIoU is {drop:.2f} points below that of {against}, expected at most "
                f"{max_drop:g}; see its worst stages, or export with --precision fp32"
            )
            raise typer.Exit(1)
