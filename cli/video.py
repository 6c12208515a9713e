"""`sed-trt video`: label the frames of a video with the categories of a vocabulary."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .console import print_note, progress_bar
from .segment import category_names, embed

if TYPE_CHECKING:
    from ..video import VideoReport

# Categories in the line that is printed at the end.
_SHOWN_CATEGORIES = 5


def video(
    bundle: Annotated[
        Path, typer.Argument(help="Bundle folder made by `sed-trt export`.", show_default=False)
    ],
    source: Annotated[Path, typer.Argument(help="Video file.", show_default=False)],
    categories: Annotated[
        str | None,
        typer.Option(
            help='Category names: "sky, tree, car", or with synonyms "sky; tree, trees; car".',
            show_default=False,
        ),
    ] = None,
    vocabulary: Annotated[
        str | None,
        typer.Option(
            help="File of category names, or a published list, as `sed-trt segment` takes it.",
            show_default=False,
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            help="Video with coloured labels to write: .mp4, .mov, .mkv or .webm. It has the times and the "
            "audio of the source.",
            show_default=False,
        ),
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(
            help="Folder for a label map per frame (PNG of category indices, 000000.png on).",
            show_default=False,
        ),
    ] = None,
    rle: Annotated[
        Path | None,
        typer.Option(
            help="File of JSON lines, one per frame, with COCO run lengths by category.", show_default=False
        ),
    ] = None,
    rejection: Annotated[
        str, typer.Option(help="Policy that drops categories early, as in `sed-trt segment`.")
    ] = "topk:8",
    short_side: Annotated[
        int, typer.Option(help="Resize the shorter side to this many pixels first; 0: no resize.", min=0)
    ] = 640,
    every: Annotated[
        int, typer.Option(help="Segment one frame in so many; its labels stay until the next.", min=1)
    ] = 1,
    smooth: Annotated[
        float,
        typer.Option(
            help="Blend probabilities with those of the frames before: weight of the past where the image "
            "stays the same, 0 (none) to 0.99."
        ),
    ] = 0.0,
    alpha: Annotated[float, typer.Option(help="Weight of the colours, 0 to 1.")] = 0.5,
    legend: Annotated[
        bool, typer.Option(help="Name the categories below the image, if they are 40 or fewer.")
    ] = True,
    backend: Annotated[
        str, typer.Option(help="auto, tensorrt, tensorrt-rtx, onnxruntime-cuda, openvino or onnxruntime.")
    ] = "auto",
    threads: Annotated[
        int | None, typer.Option(help="CPU threads per stage; by default one per core.", show_default=False)
    ] = None,
    batch: Annotated[int, typer.Option(help="Frames that are encoded together.")] = 4,
    images_at_once: Annotated[
        int,
        typer.Option(
            min=1, help="On a CPU, frames that are segmented side by side, each on its share of the cores."
        ),
    ] = 1,
    json_output: Annotated[bool, typer.Option("--json", help="Print a JSON report on stdout.")] = False,
) -> None:
    """Label every pixel of every frame of a video with one of the given categories.

    Needs PyAV: pip install -e '.[video]'. PyAV's wheels hold x264 and x265, whose licence is the GPL; that
    matters to whoever passes an environment with them on. See docs/video.md.

    Example: sed-trt video bundle clip.mp4 --categories "sky, road, car" -o labelled.mp4 --smooth 0.7
    """
    from ..runtime import Segmenter, parse_rejection
    from ..video import segment_video
    from ..video.reading import VideoReader

    # Cheap checks come first, so that a slip costs no waiting.
    names = category_names(categories, vocabulary)
    policy = parse_rejection(rejection)
    VideoReader(source).close()
    segmenter = Segmenter(bundle, backend, threads, images_at_once=images_at_once)
    embedded = embed(segmenter, names)
    with progress_bar() as bar:
        task = bar.add_task("segmenting", total=None)
        report = segment_video(
            segmenter,
            source,
            embedded,
            output,
            labels=labels,
            rle=rle,
            rejection=policy,
            short_side=short_side or None,
            batch=batch,
            every=every,
            smooth=smooth,
            alpha=alpha,
            legend=legend,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    for note in report.notes:
        print_note(note)
    targets = [str(path) for path in (output, labels, rle) if path is not None]
    if json_output:
        content = {
            "video": str(source),
            "backend": segmenter.backend,
            "backend_reason": segmenter.backend_reason,
            "written": targets,
        }
        typer.echo(json.dumps(content | asdict(report), indent=1))
        return
    _show(source, report, targets, segmenter.backend)


def _show(source: Path, report: "VideoReport", targets: list[str], backend: str) -> None:
    largest = ", ".join(
        f"{entry['name']} {entry['share']:.1%}" for entry in report.categories[:_SHOWN_CATEGORIES]
    )
    typer.echo(
        f"{source}: {report.frames} frames, {report.segmented} of them segmented, {report.broken} broken | "
        f"{largest} | {report.seconds:.1f} s on {backend} | {', '.join(targets)}"
    )
    if report.audio is not None:
        typer.echo(f"video by {report.encoder}, audio {report.audio}")
    before, after = report.flicker["before"], report.flicker["after"]
    still = f"of the pixels whose image stays the same ({_percent(before['still'])} of all)"
    if after is None:
        typer.echo(f"flicker: labels change at {_percent(before['flicker'])} {still} from frame to frame")
    else:
        typer.echo(
            f"flicker: labels change at {_percent(before['flicker'])} before smoothing and "
            f"{_percent(after['flicker'])} after, {still} from frame to frame"
        )


def _percent(share: Any) -> str:
    return "none" if share is None else f"{share:.2%}"
