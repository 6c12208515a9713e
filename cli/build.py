"""`sed-trt build`."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .console import progress_bar

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


def build(
    bundle: Annotated[Path, typer.Argument(help="Bundle folder made by `sed-trt export`.")],
    backend: Annotated[
        str | None,
        typer.Option(
            help="tensorrt, tensorrt-rtx, openvino or onnxruntime; by default the first that can build here.",
            show_default=False,
        ),
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(
            help="GPU to build for. tensorrt-rtx: portable (the default; compute capability 8.0 and later), "
            "a compute capability such as sm86, a GPU such as a6000, or current, the GPU here. tensorrt: "
            "current. openvino and onnxruntime: cpu, the processor here.",
            show_default=False,
        ),
    ] = None,
    max_categories: Annotated[int, typer.Option(help="Maximum number of categories in a vocabulary.")] = 1024,
    max_batch: Annotated[int, typer.Option(help="Maximum number of images in a batch.")] = 8,
    max_side: Annotated[int, typer.Option(help="Maximum height and width of an image in pixels.")] = 4096,
    workspace: Annotated[
        int | None, typer.Option(help="Maximum scratch memory of a kernel in bytes.", show_default=False)
    ] = None,
    optimization_level: Annotated[
        int | None, typer.Option(help="0 (fastest build) to 5 (fastest engines).", show_default=False)
    ] = None,
    timing_cache: Annotated[
        bool | None,
        typer.Option(help="Keep measured kernel times for the next build (tensorrt).", show_default=False),
    ] = None,
    hardware_compatibility: Annotated[
        str | None,
        typer.Option(
            help="Other GPUs that run the engines too, more slowly (tensorrt): ampere-plus (compute "
            "capability 8.0 and later) or same-capability.",
            show_default=False,
        ),
    ] = None,
    version_compatible: Annotated[
        bool | None,
        typer.Option(
            help="Later versions of the same major version run the engines too (tensorrt).",
            show_default=False,
        ),
    ] = None,
    refit: Annotated[
        bool, typer.Option(help="Allow the weights in the engines to be replaced (tensorrt).")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Build again even if fitting engines are there.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the engines as JSON.")] = False,
) -> None:
    """Build the engines of a bundle; tensorrt-rtx, openvino and onnxruntime need no GPU for that.

    The engines are stored in BUNDLE/engines, where the other commands find those that fit the GPU.

    Example: sed-trt build bundle --backend tensorrt-rtx --target a6000
    """
    from ..bundle import Bundle
    from ..engines.build.build import build_engines
    from ..engines.profiles import Limits
    from ..engines.targets import BuildOptions
    from .tables import engines_json, stage_table

    limits = Limits(max_categories, max_batch, max_side)
    options = BuildOptions(
        workspace=workspace,
        optimization_level=optimization_level,
        timing_cache=timing_cache,
        hardware_compatibility=hardware_compatibility,
        version_compatible=version_compatible,
        refit=refit,
    )
    with progress_bar() as bar:
        done = build_engines(Bundle.open(bundle), backend, target, limits, options, force, _Bars(bar).report)
    engines = done.engines
    if as_json:
        print(json.dumps({"already_built": done.already_built, **engines_json(engines)}, indent=1))
        return
    from rich.console import Console

    Console().print(stage_table(engines))
    verb = "already built" if done.already_built else "built"
    chosen = " (the first that works here)" if backend is None else ""
    print(f"{verb} by {engines.backend} {engines.version}{chosen} for {engines.target}: {engines.folder}")


class _Bars:
    """A bar per stage, in percent."""

    def __init__(self, progress: "Progress") -> None:
        self._progress = progress
        self._tasks: dict[str, TaskID] = {}

    def report(self, stage: str, what: str, fraction: float) -> None:
        """Show how far a stage is; "" is the work before the first one."""
        if stage not in self._tasks:
            self._tasks[stage] = self._progress.add_task(stage, total=100)
        description = f"{stage}: {what}" if stage else what
        self._progress.update(self._tasks[stage], description=description, completed=int(100 * fraction))
