"""`sed-trt evaluate`."""

import re
from pathlib import Path
from typing import Annotated

import typer

from ..errors import InputError
from .console import deliver, needs, print_error, print_note, progress_bar

SCENES = "scenes"
DEFAULT_SCENES = 200


def evaluate(
    source: Annotated[Path, typer.Argument(help="A checkpoint file (runs PyTorch) or a bundle folder.")],
    data: Annotated[
        list[str] | None,
        typer.Option(
            help="Name of a published data set, folder of your own, all (every published one), or scenes, "
            "the default. Repeatable."
        ),
    ] = None,
    rejection: Annotated[
        list[str] | None,
        typer.Option(
            "--rejection",
            "-r",
            help="Early rejection policy, as for segment; repeatable. By default topk:8 and none.",
        ),
    ] = None,
    against: Annotated[
        Path | None,
        typer.Option(
            help="A second checkpoint or bundle to compare with: mIoU, pixel agreement, error of each stage."
        ),
    ] = None,
    max_drop: Annotated[
        float | None,
        typer.Option(
            help="Exit with status 1 if the mIoU is more than this many points below that of --against."
        ),
    ] = None,
    root: Annotated[
        Path | None, typer.Option(help="Folder of the published data sets; by default $SED_DATASETS.")
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="Split of the data sets; by default each one's val.")
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Only this many images of each data set, evenly spread over it.")
    ] = None,
    short_side: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Resize the shorter side to this many pixels first; 0: no resize. By default 640, as "
            "published, and 0 for scenes.",
        ),
    ] = None,
    per_category: Annotated[
        bool, typer.Option("--per-category", help="Also show the IoU of every category.")
    ] = False,
    scenes: Annotated[int | None, typer.Option(min=1, help="Number of scenes; by default 200.")] = None,
    vocabulary_size: Annotated[
        list[int] | None,
        typer.Option(
            help="For scenes: number of categories in the vocabulary, repeatable; by default 181, their own."
        ),
    ] = None,
    layerwise: Annotated[
        str | None,
        typer.Option(
            help="fp16 or bf16: instead of the mIoU, list the tensors of a checkpoint that lose most in it."
        ),
    ] = None,
    backend: Annotated[str, typer.Option(help="Backend that runs a bundle, as for segment.")] = "auto",
    emulate: Annotated[
        bool,
        typer.Option(
            help="On the CPU, round after every operator of a half-precision bundle, as a GPU would."
        ),
    ] = True,
    processes: Annotated[
        int, typer.Option(min=1, help="Number of processes; they share the CPU cores and the GPUs.")
    ] = 1,
    shard: Annotated[
        str | None,
        typer.Option(
            metavar="I/N",
            help="Evaluate only the I-th of N shares of the images, and keep the counts in FILE.partial; the "
            "same command without --shard then merges the shares and evaluates the images that none has.",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="JSON file for the results. Until it is written the counts are kept in FILE.partial, from "
            "which the same command resumes.",
        ),
    ] = None,
    save_every: Annotated[
        int, typer.Option(min=1, help="Counts are appended after each image, and synced to disk every N.")
    ] = 25,
    as_json: Annotated[bool, typer.Option("--json", help="Print the results as JSON.")] = False,
) -> None:
    """Measure mIoU on data sets by the published protocol, with and without early rejection, or on scenes.

    Scenes are procedural test images; the larger vocabularies add names that no scene shows.

    Example: sed-trt evaluate sed-b.pth --data ade150 --data voc20 --output sed-b.json

    Example: sed-trt evaluate bundle --vocabulary-size 181 --vocabulary-size 847 --rejection topk:8

    Example: sed-trt evaluate bundle-fp16 --against bundle --max-drop 0.1
    """
    from ..files import check_writable, is_folder

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
    share = _share(shard)
    if shard is not None and (output is None or layerwise is not None or max_drop is not None):
        raise InputError("--shard: only counts, for --output FILE; leave out --layerwise and --max-drop")
    if output is not None:
        if is_folder(output):
            raise InputError(f"{output}: is a folder; name a file for the results")
        check_writable(output.parent)
    with needs("export"):
        from ..benchmarks.accuracy import evaluate as evaluations
        from ..benchmarks.accuracy.labelling import Setup
        from ..benchmarks.accuracy.protocol import SHORT_SIDE
        from ..benchmarks.accuracy.shards import ProgressFolder
    from rich.markup import escape

    from ..runtime import parse_rejection
    from .tables import show_categories, show_evaluation

    if short_side is None:
        # Scenes are as large as sed-tiny's input.
        short_side = 0 if on_scenes else SHORT_SIDE
    progress = None
    if output is not None:
        progress = ProgressFolder(output.with_name(f"{output.name}.partial"), print_note)
    setup = Setup(
        paths=(source,) if against is None else (source, against),
        policies={text: parse_rejection(text) for text in rejection or ["topk:8", "none"]},
        backend=backend,
        emulate=emulate,
        short_side=short_side or None,
        processes=processes,
        progress=progress,
        save_every=save_every,
        shard=share,
    )
    with progress_bar() as bar, needs("export"):
        task = bar.add_task("", total=None)
        current: str | None = None

        def report(what: str, done: int, total: int) -> None:
            nonlocal current
            if what != current or done < bar.tasks[0].completed:
                # The time that is left is judged by the work at hand alone.
                bar.reset(task, description=escape(what))
                current = what
            bar.update(task, completed=done, total=total)

        missing: dict[str, str] = {}
        if on_scenes:
            sets = evaluations.scene_sets(vocabulary_size, scenes or DEFAULT_SCENES)
        else:
            sets, missing = evaluations.open_sets(names, split, root, limit)
        for reason in missing.values():
            print_note(f"skipped {reason}")
        if shard is not None:
            for line in evaluations.count_shard(setup, sets, report):
                print(line)
            return
        if layerwise is not None:
            from ..benchmarks.precision.layerwise import evaluate_layers

            kind, content = evaluate_layers(source, layerwise, report)
        elif on_scenes:
            kind, content = evaluations.evaluate_scenes(setup, sets, report)
        else:
            kind, content = evaluations.evaluate_sets(setup, sets, missing, report)
    deliver(kind, content, show_evaluation, output, as_json)
    if progress is not None:
        progress.remove()
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


def _refuse_for_scenes(data: list[str], **options: object) -> None:
    if len(data) > 1:
        raise InputError(f"--data: {SCENES} are evaluated alone; leave out the other data sets")
    for name, value in options.items():
        if value:
            raise InputError(f"--{name.replace('_', '-')}: is for data sets; name one with --data")


def _share(shard: str | None) -> tuple[int, int]:
    """I and N of --shard I/N; all images without it."""
    if shard is None:
        return 1, 1
    match = re.fullmatch(r"([0-9]+)/([0-9]+)", shard)
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise InputError(f"--shard: {shard!r} is no share, expected I/N with I from 1 to N, such as 2/4")
    return int(match[1]), int(match[2])
