"""`sed-trt evaluate`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .console import deliver, print_error, print_note, progress_bar

if TYPE_CHECKING:
    from ..benchmarks.accuracy.count_pictures import Report
    from ..benchmarks.accuracy.picture_counter import Setup

SCENES = "scenes"
DEFAULT_SCENES = 200


def evaluate(
    source: Annotated[Path, typer.Argument(help="A checkpoint file (runs PyTorch) or a bundle folder.")],
    data: Annotated[
        list[str] | None,
        typer.Option(
            help="A data set, the path of an own one, all published ones (all), or scenes, the default. "
            "Repeatable."
        ),
    ] = None,
    rejection: Annotated[
        list[str] | None,
        typer.Option("--rejection", "-r", help="Policies to compare; by default topk:8 and none."),
    ] = None,
    against: Annotated[
        Path | None, typer.Option(help="Another one to compare with: mIoU, agreement, stage by stage.")
    ] = None,
    max_drop: Annotated[
        float | None,
        typer.Option(help="Exit with 1 when the mIoU is lower than that of --against by more points."),
    ] = None,
    root: Annotated[
        Path | None, typer.Option(help="Folder of the published data sets; by default $SED_DATASETS.")
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="Split of the data sets; by default each one's val.")
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="So many pictures of each set, evenly spread over it.")
    ] = None,
    short_side: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Resize the shorter side to so many pixels first; 0 leaves the picture. By default 640, as "
            "published, and 0 for scenes.",
        ),
    ] = None,
    per_category: Annotated[
        bool, typer.Option("--per-category", help="Also show every category of the data sets.")
    ] = False,
    scenes: Annotated[int | None, typer.Option(min=1, help="How many test scenes; by default 200.")] = None,
    vocabulary_size: Annotated[
        list[int] | None,
        typer.Option(help="For scenes: names to choose from, repeatable; by default 181, their own."),
    ] = None,
    layerwise: Annotated[
        str | None,
        typer.Option(help="Instead, name the tensors of a checkpoint that lose most in fp16 or bf16."),
    ] = None,
    backend: Annotated[str, typer.Option(help="Backend of a bundle.")] = "auto",
    emulate: Annotated[
        bool,
        typer.Option(help="Where only the CPU runs a half-precision bundle, round after every operator."),
    ] = True,
    processes: Annotated[
        int, typer.Option(min=1, help="Label in so many processes; they share the cores and the GPUs.")
    ] = 1,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="Also write the results as JSON; what is done is kept in FILE.partial until then, and the "
            "same command goes on from there.",
        ),
    ] = None,
    save_every: Annotated[int, typer.Option(min=1, help="Pictures between two saves of what is done.")] = 25,
    as_json: Annotated[bool, typer.Option("--json", help="Print the results as JSON.")] = False,
) -> None:
    """Measure mIoU on data sets by the published protocol, with and without early rejection, or on scenes.

    Scenes are procedural test pictures; the larger vocabularies add names that no scene shows.

    Example: sed-trt evaluate sed-b.pth --data ade150 --data voc20 --output sed-b.json

    Example: sed-trt evaluate bundle --vocabulary-size 181 --vocabulary-size 847 --rejection topk:8

    Example: sed-trt evaluate bundle-fp16 --against bundle --max-drop 0.1
    """
    from ..errors import InputError
    from ..files import check_writable, is_folder
    from .console import needs

    names = data or [SCENES]
    on_scenes = SCENES in names
    if on_scenes:
        _refuse_for_scenes(names, root=root, split=split, limit=limit, per_category=per_category)
    elif scenes is not None or vocabulary_size or layerwise is not None:
        raise InputError("--scenes, --vocabulary-size and --layerwise: are for scenes; leave out --data")
    if max_drop is not None and against is None:
        raise InputError("--max-drop: compares with another one; name it with --against")
    if layerwise is not None and against is not None:
        raise InputError("--layerwise: compares a checkpoint with itself; leave out --against")
    if output is not None:
        if is_folder(output):
            raise InputError(f"{output}: is a folder; name a file for the results")
        check_writable(output.parent)
    with needs("export"):
        from ..benchmarks.accuracy.evaluate import name_worst
        from ..benchmarks.accuracy.picture_counter import Setup
        from ..benchmarks.accuracy.protocol import SHORT_SIDE
        from ..benchmarks.accuracy.saved_counts import SavedCounts
    from rich.markup import escape

    from ..runtime import parse_rejection
    from .tables import show_categories, show_evaluation

    if short_side is None:
        # Scenes are as large as sed-tiny's input.
        short_side = 0 if on_scenes else SHORT_SIDE
    saved = None if output is None else SavedCounts(output.with_name(f"{output.name}.partial"), print_note)
    setup = Setup(
        paths=(source,) if against is None else (source, against),
        policies={text: parse_rejection(text) for text in rejection or ["topk:8", "none"]},
        backend=backend,
        emulate=emulate,
        short_side=short_side or None,
        processes=processes,
        saved=saved,
        save_every=save_every,
    )
    with progress_bar() as bar, needs("export"):
        task = bar.add_task("", total=None)
        doing: str | None = None

        def report(what: str, done: int, total: int) -> None:
            nonlocal doing
            if what != doing or done < bar.tasks[0].completed:
                # The time that is left is judged by the work at hand alone.
                bar.reset(task, description=escape(what))
                doing = what
            bar.update(task, completed=done, total=total)

        if layerwise is not None:
            kind, content = "layerwise", name_worst(source, layerwise, report)
        elif on_scenes:
            kind, content = _on_scenes(setup, vocabulary_size, scenes or DEFAULT_SCENES, report)
        else:
            kind, content = _on_data(setup, names, split, root, limit, report)
    deliver(kind, content, show_evaluation, output, as_json)
    if saved is not None:
        saved.remove()
    if per_category and not as_json:
        show_categories(content)
    if max_drop is not None:
        drop = max(row["drop"] for row in content["results"])
        if drop > max_drop:
            print_error(
                f"{source}: its mIoU is {drop:.2f} points below that of {against}, expected at most "
                f"{max_drop:g}; see its worst stages, or export with --precision fp32"
            )
            raise typer.Exit(1)


def _refuse_for_scenes(data: list[str], **given: object) -> None:
    from ..errors import InputError

    if len(data) > 1:
        raise InputError(f"--data: {SCENES} are evaluated alone; leave out the other data sets")
    for name, value in given.items():
        if value:
            raise InputError(f"--{name.replace('_', '-')}: is for data sets; name one with --data")


def _on_scenes(
    setup: "Setup", sizes: list[int] | None, scenes: int, report: "Report"
) -> tuple[str, dict[str, Any]]:
    from ..benchmarks.accuracy.evaluate import compare, measure
    from ..errors import InputError
    from ..train.scenes import VOCABULARY, longer_vocabulary

    try:
        vocabularies = [longer_vocabulary(size) for size in sizes or [len(VOCABULARY)]]
    except ValueError as error:
        raise InputError(f"--vocabulary-size: {error}") from error
    if len(setup.paths) > 1:
        return "parity", compare(setup, vocabularies, scenes, report)
    return "scores", measure(setup, vocabularies, scenes, report)


def _on_data(
    setup: "Setup",
    names: list[str],
    split: str | None,
    root: Path | None,
    limit: int | None,
    report: "Report",
) -> tuple[str, dict[str, Any]]:
    from ..benchmarks.accuracy.datasets import evaluate_sets, open_sets

    datasets, missing = open_sets(names, split, root)
    for reason in missing.values():
        print_note(f"skipped {reason}")
    return evaluate_sets(setup, datasets, missing, limit, report)
