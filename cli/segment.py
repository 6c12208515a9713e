"""`sed-trt segment`: label images with the categories of a vocabulary."""

import glob
import json
from collections.abc import Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import InputError
from ..files import IMAGE_SUFFIXES, exists, is_file, is_folder, make_folder, resolved
from .console import print_error, progress_bar

if TYPE_CHECKING:
    from ..runtime import Result, Segmenter, StreamItem, Vocabulary

# Categories in the line that is printed for an image.
_SHOWN_CATEGORIES = 3


def segment(
    bundle: Annotated[
        Path, typer.Argument(help="Bundle folder made by `sed-trt export`.", show_default=False)
    ],
    inputs: Annotated[list[str], typer.Argument(help="Image files, folders or globs.", show_default=False)],
    categories: Annotated[
        str | None,
        typer.Option(
            help='Category names, separated by commas: "sky, tree, car". With a semicolon or line break '
            'between categories, commas separate synonyms: "sky; tree, trees; car".',
            show_default=False,
        ),
    ] = None,
    vocabulary: Annotated[
        str | None,
        typer.Option(
            help="File of category names, or a published list: ade150, ade847, coco, pc59, pc459, voc20, "
            "voc20b. A text file holds one category per line (or semicolon), with commas between synonyms: "
            '"tree, trees"; a .json file a list: ["sky", "tree, trees"].',
            show_default=False,
        ),
    ] = None,
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder to write to.")] = Path("segmented"),
    rejection: Annotated[
        str,
        typer.Option(
            help="Policy that drops categories early: topk:K (those among the K best at any pixel), "
            "min-pixels:K:PIXELS (at PIXELS pixels or more), budget:CATEGORIES (a fixed number) or none."
        ),
    ] = "topk:8",
    short_side: Annotated[
        int, typer.Option(help="Resize the shorter side to this many pixels first; 0: no resize.", min=0)
    ] = 640,
    backend: Annotated[
        str, typer.Option(help="auto, tensorrt, tensorrt-rtx, onnxruntime-cuda, openvino or onnxruntime.")
    ] = "auto",
    threads: Annotated[
        int | None, typer.Option(help="CPU threads per stage; by default one per core.", show_default=False)
    ] = None,
    batch: Annotated[
        int, typer.Option(help="Images that a GPU encodes together; on a CPU, that are read ahead.")
    ] = 4,
    images_at_once: Annotated[
        int,
        typer.Option(
            min=1, help="On a CPU, images that are labelled side by side, each on its share of the cores."
        ),
    ] = 1,
    device_rejection: Annotated[
        bool,
        typer.Option(
            "--device-rejection",
            help="On a GPU, choose the categories to keep there, so that the host waits once for an image. "
            "Off by default, until a GPU has shown what it gains; on a CPU it changes nothing.",
        ),
    ] = False,
    cuda_graphs: Annotated[
        bool,
        typer.Option(
            "--cuda-graphs",
            help="On a GPU, launch each stage as a whole, as it was recorded. Off by default, until a GPU "
            "has shown what it gains.",
        ),
    ] = False,
    overlay: Annotated[
        bool, typer.Option(help="Also write the image with coloured labels and a legend.")
    ] = True,
    json_output: Annotated[bool, typer.Option("--json", help="Print a JSON summary on stdout.")] = False,
) -> None:
    """Label every pixel of images with one of the given categories.

    Writes for each image STEM.labels.png (category indices), STEM.overlay.png and STEM.json.

    Example: sed-trt segment bundle photo.jpg holiday/ --categories "sky, tree, red car"
    """
    from ..runtime import Segmenter, parse_rejection
    from ..runtime.stream import map_threaded, pool_size

    # Cheap checks come first, so that a slip costs no waiting.
    names = category_names(categories, vocabulary)
    policy = parse_rejection(rejection)
    paths = expand_inputs(inputs)
    segmenter = Segmenter(
        bundle,
        backend,
        threads,
        images_at_once=images_at_once,
        device_rejection=device_rejection,
        cuda_graphs=cuda_graphs,
    )
    make_folder(output)
    embedded = embed(segmenter, names)
    items = segmenter.stream(paths, embedded, policy, short_side or None, batch, scores=False)
    summaries: list[dict[str, Any]] = []
    errors: list[str] = []

    def write(item_and_stem: "tuple[StreamItem, str]") -> dict[str, Any] | str:
        item, stem = item_and_stem
        if item.result is None:
            return str(item.error)
        return _write(item.result, str(item.source), output / stem, overlay)

    with (
        closing(items),
        progress_bar() as progress,
        closing(map_threaded(write, zip(items, distinct_stems(paths), strict=True), pool_size())) as outcomes,
    ):
        for outcome in progress.track(outcomes, len(paths), description="segmenting"):
            if isinstance(outcome, str):
                errors.append(outcome)
                print_error(outcome)
                continue
            summaries.append(outcome)
            if not json_output:
                typer.echo(_line(outcome, output))
    if json_output:
        _print_json(segmenter, output, summaries, errors)
    else:
        typer.echo(
            f"{len(summaries)} of {len(paths)} images segmented on {segmenter.backend} "
            f"({segmenter.backend_reason}), written to {output}"
        )
    if errors:
        raise typer.Exit(2)


def category_names(categories: str | None, vocabulary: str | None) -> list[str]:
    """The names that one of the options --categories and --vocabulary gives.

    Raises:
        InputError: both or neither are given, or the names cannot be read.
    """
    from ..runtime import parse_names, read_vocabulary

    if vocabulary is not None and categories is None:
        return read_vocabulary(vocabulary)
    if categories is not None and vocabulary is None:
        return parse_names(categories)
    raise InputError('give one of --categories "sky, tree" and --vocabulary FILE|NAME')


def expand_inputs(inputs: Iterable[str]) -> list[Path]:
    """The files that `inputs` name, in order and each once: files, images of folders, globs (`**` recurses).

    A plain path is taken as it is, whether or not a file is there.

    Raises:
        InputError: a folder holds no images or cannot be listed, or a glob matches nothing.
    """
    files: dict[Path, Path] = {}
    for text in inputs:
        for path in _expand(text):
            files.setdefault(resolved(path), path)
    return list(files.values())


def _expand(text: str) -> list[Path]:
    path = Path(text)
    if is_folder(path):
        try:
            images = sorted(file for file in path.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES)
        except OSError as error:
            raise InputError(
                f"{path}: cannot be listed ({error.strerror}); give a folder you can read"
            ) from error
        if not images:
            raise InputError(
                f"{path}: is a folder without images, expected {', '.join(sorted(IMAGE_SUFFIXES))}"
            )
        return images
    # No file name holds a null byte, which `glob` cannot take either.
    if exists(path) or not glob.has_magic(text) or "\0" in text:
        return [path]
    # Path.glob takes no absolute pattern.
    matches = sorted(Path(match) for match in glob.glob(text, recursive=True))  # noqa: PTH207
    files = [match for match in matches if is_file(match)]
    if not files:
        raise InputError(f"{text}: matches no file; check the pattern")
    return files


def distinct_stems(paths: Sequence[Path]) -> list[str]:
    """One output stem per path: its own, or with "-2", "-3" … where an earlier path has it.

    Stems that differ in case only count as equal, as they do on some file systems.
    """
    taken: set[str] = set()
    stems = []
    for path in paths:
        stem, number = path.stem, 1
        while stem.casefold() in taken:
            number += 1
            stem = f"{path.stem}-{number}"
        taken.add(stem.casefold())
        stems.append(stem)
    return stems


def embed(segmenter: "Segmenter", names: list[str]) -> "Vocabulary":
    """The vocabulary of the names, with a progress bar."""
    with progress_bar() as progress:
        task = progress.add_task("embedding categories", total=len(names))
        return segmenter.vocabulary(names, lambda done, total: progress.update(task, completed=done))


def _write(result: "Result", source: str, base: Path, overlay: bool) -> dict[str, Any]:
    """Write the files of one image, `base` plus a suffix each, and return the content of its JSON."""
    from ..runtime.result import summary, write_json, write_labels, write_overlay

    labels_file = base.with_name(f"{base.name}.labels.png")
    overlay_file = base.with_name(f"{base.name}.overlay.png") if overlay else None
    content = summary(source, result) | {
        "labels": labels_file.name,
        "overlay": overlay_file.name if overlay_file else None,
    }
    write_labels(labels_file, result)
    if overlay_file:
        write_overlay(overlay_file, result)
    write_json(base.with_name(f"{base.name}.json"), content)
    return content


def _line(content: dict[str, Any], folder: Path) -> str:
    largest = ", ".join(
        f"{entry['name']} {entry['share']:.1%}" for entry in content["categories"][:_SHOWN_CATEGORIES]
    )
    kept = " > ".join(str(count) for count in content["kept"])
    shown = folder / (content["overlay"] or content["labels"])
    milliseconds = sum(content["timings_ms"].values())
    return f"{content['image']}: {largest} | kept {kept} | {milliseconds:.0f} ms | {shown}"


def _print_json(
    segmenter: "Segmenter", output: Path, summaries: list[dict[str, Any]], errors: list[str]
) -> None:
    content = {
        "backend": segmenter.backend,
        "backend_reason": segmenter.backend_reason,
        "output": str(output),
        "images": summaries,
        "errors": errors,
    }
    typer.echo(json.dumps(content, indent=1))
