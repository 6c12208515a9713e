"""`sed-trt serve`: answer requests over HTTP."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import InputError
from ..files import is_folder
from .console import needs, print_note

if TYPE_CHECKING:
    from ..runtime import Segmenter

# Images to try the server on, where the package stands in the project's own folder.
_EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


def serve(
    bundles: Annotated[
        list[Path],
        typer.Argument(help="Bundle folders; requests that name none get the first.", show_default=False),
    ],
    host: Annotated[
        str, typer.Option(help="Address to listen on; any but a loopback one needs API keys.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0: a free one.", min=0, max=65535)] = 8000,
    api_keys: Annotated[
        Path | None,
        typer.Option(
            help="File of API keys, one per line. Without it, they come from SED_TRT_API_KEYS, with commas.",
            show_default=False,
        ),
    ] = None,
    cors: Annotated[
        list[str] | None,
        typer.Option(
            help="Web site whose pages may use the server, such as https://example.org; repeatable.",
            show_default=False,
        ),
    ] = None,
    vocabulary: Annotated[
        list[str] | None,
        typer.Option(
            help="Published list or NAME=FILE that is embedded before the server is ready; repeatable.",
            show_default=False,
        ),
    ] = None,
    examples: Annotated[
        Path | None,
        typer.Option(help="Folder of images that the page offers, and vocabulary.txt.", show_default=False),
    ] = None,
    backend: Annotated[
        str, typer.Option(help="auto, tensorrt, tensorrt-rtx, onnxruntime-cuda, openvino or onnxruntime.")
    ] = "auto",
    threads: Annotated[
        int | None, typer.Option(help="CPU threads per stage; by default one per core.", show_default=False)
    ] = None,
    images_at_once: Annotated[
        int, typer.Option(min=1, help="On a CPU, images that are computed side by side.")
    ] = 1,
    batch: Annotated[int, typer.Option(help="Images that the encoder takes together at most.")] = 4,
    batch_wait_ms: Annotated[
        float, typer.Option(help="How long the first image of a batch waits for others.")
    ] = 2,
    queue: Annotated[
        int, typer.Option(help="Images that wait or are computed; further ones are answered 429.")
    ] = 16,
    timeout: Annotated[float, typer.Option(help="Seconds until a request is given up.")] = 60,
    drain: Annotated[
        float, typer.Option(help="Seconds that requests under way get when the server is told to stop.")
    ] = 30,
    max_bytes: Annotated[int, typer.Option(help="Of the body of a request.")] = 20_000_000,
    max_pixels: Annotated[int, typer.Option(help="Of an image.")] = 32_000_000,
    max_categories: Annotated[int, typer.Option(help="Of a vocabulary.")] = 1024,
    max_kept: Annotated[int, typer.Option(help="Categories that rejection may leave.")] = 256,
    images_kept: Annotated[int, typer.Option(help="Encoded images kept for further requests; 0: none.")] = 32,
    images_kept_mb: Annotated[int, typer.Option(help="Megabytes of these.")] = 1024,
    image_ttl: Annotated[float, typer.Option(help="Seconds that one is kept after its last use.")] = 900,
    vocabularies_mb: Annotated[int, typer.Option(help="Megabytes of embedded vocabularies.")] = 2048,
    log_level: Annotated[str, typer.Option(help="critical, error, warning, info or debug.")] = "info",
) -> None:
    """Answer requests over HTTP: a page, JSON, the Open Inference Protocol, metrics.

    The API is described at /docs. SIGTERM ends the server after the requests under way.

    Example: sed-trt serve bundle --port 8000
    """
    with needs("serve"):
        from ..serve.run import Server
    from ..serve.settings import Settings, check_exposure, read_api_keys

    # Cheap checks come first, so that a slip costs no waiting.
    keys = read_api_keys(api_keys)
    check_exposure(host, keys)
    settings = Settings(
        max_bytes=max_bytes,
        max_pixels=max_pixels,
        max_categories=max_categories,
        max_kept=max_kept,
        queue=queue,
        vocabularies_mb=vocabularies_mb,
        images_kept=images_kept,
        images_kept_mb=images_kept_mb,
        image_ttl_s=image_ttl,
        batch=batch,
        batch_wait_ms=batch_wait_ms,
        timeout_s=timeout,
        drain_s=drain,
    )
    if log_level not in ("critical", "error", "warning", "info", "debug"):
        raise InputError(
            f"log level: {log_level!r:.40} is unknown; choose critical, error, warning, info or debug"
        )
    if examples is not None and not is_folder(examples):
        raise InputError(f"{examples}: no such folder; give one with images and vocabulary.txt")
    vocabularies = dict(_vocabulary(text) for text in vocabulary or ())
    segmenters = _open(bundles, backend, threads, images_at_once)
    server = Server(
        segmenters,
        settings,
        host=host,
        port=port,
        keys=keys,
        origins=cors or (),
        examples=examples or (_EXAMPLES if is_folder(_EXAMPLES) else None),
        vocabularies=vocabularies,
        log_level=log_level,
    )
    for name, segmenter in segmenters.items():
        print_note(f"{name} on {segmenter.backend} ({segmenter.backend_reason})")
    typer.echo(f"{server.url}  page; /docs, /metrics")
    server.run()


def _open(
    bundles: list[Path], backend: str, threads: int | None, images_at_once: int
) -> "dict[str, Segmenter]":
    """The opened bundles by names that fit into addresses and differ."""
    from ..runtime import Segmenter
    from .segment import distinct_stems

    # A link is called as it is called, not as what it leads to; "." and ".." have no name of their own.
    named = [path.resolve() if path.name in ("", "..") else path for path in bundles]
    names = [Path(re.sub(r"[^A-Za-z0-9._-]", "-", path.name)) for path in named]
    # The server keeps vocabularies itself, by their size.
    return {
        name: Segmenter(path, backend, threads, vocabularies=1, images_at_once=images_at_once)
        for name, path in zip(distinct_stems(names), bundles, strict=True)
    }


def _vocabulary(text: str) -> tuple[str, list[str]]:
    """Name and categories of "NAME=FILE", or of a published list or file alone."""
    from ..runtime import read_vocabulary

    name, equals, source = text.partition("=")
    return (name, read_vocabulary(source)) if equals else (Path(text).stem, read_vocabulary(text))
