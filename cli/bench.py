"""`sed-trt bench`: speed of bundles beside the published network, and lower bounds of it on GPUs."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from ..errors import InputError
from .console import deliver, needs, progress_bar
from .options import AsJson, Output, check_output, kept_at_each_point, one_of, sizes_of, words
from .tables import show_bench

bench = typer.Typer(no_args_is_help=True, help="Measure speed, against the published network and others.")

Backend = Annotated[str, typer.Option(help="Backend of the bundle.")]
Threads = Annotated[int | None, typer.Option(min=1, help="CPU threads; one per core by default.")]


@bench.command()
def latency(
    bundles: Annotated[
        list[Path],
        typer.Argument(metavar="BUNDLE...", help="Bundle folders of one checkpoint, whose rounds alternate."),
    ],
    checkpoint: Annotated[
        Path | None,
        typer.Option(help="Checkpoint that the bundles were exported from, which the baselines need."),
    ] = None,
    vocabulary_size: Annotated[
        str, typer.Option(help="Numbers of categories, comma-separated.")
    ] = "20,59,150,459,847",
    kept: Annotated[
        str | None,
        typer.Option(
            help="Categories kept: numbers, all, real (topk:8 on scenes; embeds names). "
            "16,32,64,128,all by default, and real for sed-tiny."
        ),
    ] = None,
    all_up_to: Annotated[
        int | None,
        typer.Option(min=1, help="Largest vocabulary for the row all, whose memory grows with it."),
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(
            help="Baselines, comma-separated: published, published-compiled and published-compiled-bf16 "
            "(minutes to compile), published-autocast (GPU), published-autocast-bf16, monolithic, "
            "monolithic-openvino, monolithic-openvino-bf16; or none. By default all that gain something here."
        ),
    ] = None,
    repeats: Annotated[int, typer.Option(min=1, help="Alternating rounds in each row.")] = 10,
    pictures: Annotated[int, typer.Option(min=1, help="How many different images.")] = 3,
    picture_size: Annotated[
        int | None, typer.Option(min=1, help="Side of the images; the network's by default.")
    ] = None,
    stream: Annotated[int, typer.Option(min=0, help="Images to stream for images per second.")] = 8,
    images_at_once: Annotated[
        int, typer.Option(min=1, help="Also stream with so many images side by side, on a CPU.")
    ] = 1,
    growth: Annotated[
        str | None,
        typer.Option(
            help="Also time the bundles with vocabularies of these sizes in turn, such as 150,4096."
        ),
    ] = None,
    alone: Annotated[
        bool, typer.Option(help="Run each in a process of its own too: memory and first call.")
    ] = True,
    backend: Annotated[
        str, typer.Option(help="Backends, comma-separated; every bundle runs on each one that can run it.")
    ] = "auto",
    device: Annotated[
        str, typer.Option(help="Device of the baselines: cpu, cuda, or auto, the bundles' own.")
    ] = "auto",
    cuda_graphs: Annotated[
        bool,
        typer.Option(
            "--cuda-graphs",
            help="On a GPU, launch each stage as a whole, as it was recorded. Off by default, until a GPU "
            "has shown what it gains.",
        ),
    ] = False,
    threads: Threads = None,
    output: Output = None,
    as_json: AsJson = False,
) -> None:
    """Time bundles and their baselines, in alternating runs that decode the same categories.

    Example: sed-trt bench latency bundle --checkpoint checkpoints/sed-tiny.safetensors --repeats 20

    Example: sed-trt bench latency bundle bundle-int8 --backend onnxruntime,openvino --against none
    """
    check_output(output)
    with needs("export"):
        from ..benchmarks.speed.candidates import BASELINES, Subject
        from ..benchmarks.speed.latency import Plan, measure_latency
    from ..bundle import Bundle
    from ..engines.backends import BACKENDS

    # Baselines need the weights.
    named: list[str] | None = None if checkpoint is not None else []
    if against is not None:
        named = [] if against.strip() == "none" else words("--against", against, tuple(BASELINES))
    default_kept = "16,32,64,128,all"
    if Bundle.open(bundles[0]).manifest.preset == "sed-tiny":
        default_kept += ",real"
    plan = Plan(
        sizes=sizes_of("--vocabulary-size", vocabulary_size),
        kept=words("--kept", kept or default_kept, ("all", "real"), numbers=True),
        against=named,
        rounds=repeats,
        images=pictures,
        image_size=picture_size,
        streamed=stream,
        images_at_once=images_at_once,
        all_up_to=all_up_to,
        growth=[] if growth is None else sizes_of("--growth", growth),
        alone=alone,
    )
    subjects = [
        Subject(
            bundle=str(bundle),
            checkpoint=None if checkpoint is None else str(checkpoint),
            backend=each,
            device=one_of("--device", device, ("auto", "cpu", "cuda")),
            threads=threads,
            cuda_graphs=cuda_graphs,
        )
        for bundle in dict.fromkeys(bundles)
        for each in words("--backend", backend, BACKENDS)
    ]
    with _reporting() as report, needs("export"):
        content = measure_latency(subjects, plan, report)
    deliver("latency", content, show_bench, output, as_json)


@bench.command()
def roofline(
    preset: Annotated[str, typer.Option(help="sed-b, sed-l or sed-tiny.")] = "sed-b",
    categories: Annotated[int, typer.Option(min=1, help="Size of the vocabulary.")] = 150,
    kept: Annotated[
        str, typer.Option(help="Categories left after each rejection: one number, or three with commas.")
    ] = "32",
    gpu: Annotated[str, typer.Option(help="Names with commas, for example a6000,h200, or all.")] = "all",
    precision: Annotated[str, typer.Option(help="fp32, fp16 or bf16.")] = "fp16",
    measured: Annotated[
        list[Path] | None, typer.Option(help="Latency results, for the fraction reached; repeatable.")
    ] = None,
    output: Output = None,
    as_json: AsJson = False,
) -> None:
    """Compute FLOPs and bytes of every stage, and how fast a GPU could be at best; nothing is run.

    Example: sed-trt bench roofline --preset sed-b --categories 150 --kept 32 --gpu a6000
    """
    check_output(output)
    with needs("export"):
        from ..benchmarks.speed import roofline as module
    from ..benchmarks.results_file import read_results
    from ..model.presets import preset_named

    content = module.roofline(
        preset_named(preset),
        categories,
        kept_at_each_point(kept, categories),
        one_of("--precision", precision, tuple(module.BYTES)),
        list(module.GPUS) if gpu == "all" else words("--gpu", gpu, tuple(module.GPUS)),
        [read_results(file, "latency") for file in measured or []],
    )
    deliver("roofline", content, show_bench, output, as_json)


@bench.command()
def profile(
    bundle: Annotated[Path, typer.Argument(help="A bundle folder.")],
    categories: Annotated[int, typer.Option(min=1, help="Size of the vocabulary.")] = 150,
    kept: Annotated[int, typer.Option(min=1, help="Categories left after each rejection.")] = 32,
    rounds: Annotated[int, typer.Option(min=1, help="Runs of each stage.")] = 5,
    backend: Annotated[
        str, typer.Option(help="onnxruntime or openvino, whose profiler is used.")
    ] = "onnxruntime",
    threads: Threads = None,
    output: Output = None,
    as_json: AsJson = False,
) -> None:
    """Show where the time of each stage goes on the CPU, by kind of operator.

    Example: sed-trt bench profile bundle --categories 150 --kept 32 --backend openvino
    """
    check_output(output)
    with needs("cpu"):
        from ..benchmarks.speed import profile as module
        from ..benchmarks.speed.candidates import Forced, random_vocabulary
        from ..benchmarks.speed.rounds import scene_images
        from ..bundle import Bundle

    one_of("--backend", backend, tuple(module.PROFILERS))
    manifest = Bundle.open(bundle).manifest
    vocabulary = random_vocabulary(manifest, categories)
    (image,) = scene_images(1, manifest.image_size)
    with _reporting() as report:
        content = module.profile(bundle, vocabulary, image, Forced(kept), rounds, report, threads, backend)
    deliver("profile", content, show_bench, output, as_json)


@bench.command()
def sweep(
    bundle: Annotated[Path, typer.Argument(help="A bundle folder of a network trained on scenes.")],
    rejection: Annotated[
        list[str] | None,
        typer.Option(
            "--rejection", "-r", help="Policies to try, repeatable; by default a range of all kinds."
        ),
    ] = None,
    vocabulary_size: Annotated[
        str, typer.Option(help="Numbers of names, comma-separated, from 181, the scenes' own.")
    ] = "181,847",
    scenes: Annotated[int, typer.Option(min=1, help="How many test scenes.")] = 50,
    max_drop: Annotated[
        float, typer.Option(min=0, help="Points of mIoU that the recommended policy may lose.")
    ] = 0.1,
    plot: Annotated[Path | None, typer.Option(help="Also draw mIoU against time, as PNG or SVG.")] = None,
    backend: Backend = "auto",
    threads: Threads = None,
    output: Output = None,
    as_json: AsJson = False,
) -> None:
    """Try rejection policies on test scenes: categories kept, time, mIoU, and a recommended policy.

    Example: sed-trt bench sweep bundle --scenes 100 --plot sweep.png
    """
    check_output(output)
    check_output(plot, (".png", ".svg"))
    with needs("bench"):
        from ..benchmarks.speed import sweep as module

        if plot is not None:
            from ..benchmarks.report.plots import speed_against_miou
    from ..runtime import parse_rejection
    from ..train.scenes import longer_vocabulary

    sizes = sizes_of("--vocabulary-size", vocabulary_size)
    try:
        for size in sizes:
            longer_vocabulary(size)
    except ValueError as error:
        raise InputError(f"--vocabulary-size: {error}") from error
    policies = {text: parse_rejection(text) for text in rejection or module.POLICIES}
    with _reporting() as report, needs("cpu"):
        content = module.sweep(bundle, policies, sizes, scenes, max_drop, report, backend, threads)
    deliver("sweep", content, show_bench, output, as_json)
    if plot is not None:
        speed_against_miou(content, plot)


@bench.command()
def serve(
    url: Annotated[str, typer.Argument(help="Address of a running `sed-trt serve`.")],
    clients: Annotated[
        str, typer.Option(help="Closed loops: clients that wait for their answers; several with commas.")
    ] = "1,4",
    rate: Annotated[
        str | None,
        typer.Option(
            help="Open loops: requests per second, or 4x, times what the closed loops reach; several "
            "with commas."
        ),
    ] = None,
    requests: Annotated[int, typer.Option(min=1, help="Requests of each loop.")] = 100,
    image: Annotated[Path | None, typer.Option(help="Image to send; a drawn scene by default.")] = None,
    categories: Annotated[
        str | None, typer.Option(help="Category names, as `sed-trt segment` takes them.")
    ] = None,
    vocabulary: Annotated[
        str | None, typer.Option(help="Instead of --categories, a list that the server knows by name.")
    ] = None,
    bundle: Annotated[str | None, typer.Option(help="Bundle of the server; its first by default.")] = None,
    encoded: Annotated[
        bool, typer.Option("--encoded", help="Send the image once, and segment what the server keeps of it.")
    ] = False,
    remote: Annotated[
        bool, typer.Option("--remote", help="Load another machine: only one that you may overload.")
    ] = False,
    output: Output = None,
    as_json: AsJson = False,
) -> None:
    """Load a running server: times and throughput, what it rejects, and how its memory grows.

    An API key, if the server asks for one, is read from the environment variable SED_TRT_API_KEY.

    Example: sed-trt bench serve http://127.0.0.1:8000 --clients 1,4 --rate 4x
    """
    check_output(output)
    from ..benchmarks.speed.load import KEY_VARIABLE, Load, Server
    from ..benchmarks.speed.serving import measure_serving

    if categories is not None and vocabulary is not None:
        raise InputError("give one of --categories and --vocabulary")
    loads = [Load(clients=count) for count in sizes_of("--clients", clients)]
    loads += [Load.parse_rate(text) for text in (rate or "").split(",") if rate is not None]
    server = Server.at(url, os.environ.get(KEY_VARIABLE, ""), remote)
    with _reporting() as report:
        content = measure_serving(
            server, loads, requests, report, image, categories, vocabulary, bundle, encoded
        )
    deliver("serving", content, show_bench, output, as_json)


@bench.command()
def report(
    results: Annotated[
        list[Path] | None,
        typer.Argument(help="Results files or folders of them; benchmarks/results by default."),
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the report.")] = Path("report"),
) -> None:
    """Turn results into report.md with tables and plots.

    Example: sed-trt bench report benchmarks/results --output report
    """
    with needs("bench"):
        from ..benchmarks.report.pages import write_report

        files = write_report(results or [Path("benchmarks/results")], output)
    for file in files:
        print(file)


@contextmanager
def _reporting() -> Iterator[Callable[[str, int, int], None]]:
    """Draw a progress bar; gives the `Report` function by which a benchmark moves it."""
    with progress_bar() as bar:
        task = bar.add_task("")
        yield lambda what, done, total: bar.update(task, description=what, completed=done, total=total)
