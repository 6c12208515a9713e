"""Builds the engines of all stages of a bundle and stores them, all or none."""

import hashlib
import json
import shutil
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import msgspec
from filelock import FileLock, Timeout

from ...bundle import ENGINES_FOLDER, Bundle, Stage, file_record
from ...errors import InputError
from ...files import exists
from ..backends import check_runs_on_gpu
from ..openvino.plans import compile_plan
from ..openvino.precision import Arithmetic, bundle_arithmetic, compiled_for
from ..ort.session import CPU_PROVIDER, check_session, open_session
from ..profiles import Limits, Profile, stage_profiles
from ..store import (
    BuiltEngines,
    BuiltStage,
    GraphRecord,
    NetworkSummary,
    PlanRecord,
    built_stages,
    graph_hashes,
    installed_version,
    is_complete,
    read_engines,
    write_engines,
    write_stage,
)
from ..targets import TENSORRT_BACKENDS, BuildOptions
from ..trt.library import load_library
from .progress import run_in_worker, watch_interruption
from .target import check_builds_on_cpu, cpu_target, default_backend, gpu_target
from .tensorrt import Recipe, build_plan

# Called with the stage, what is being done, and the fraction of the stage that is done.
Progress = Callable[[str, str, float], None]

LOCK_FILE = ".lock"
_UNFINISHED = ".building-"
_KEY_DIGITS = 12


@dataclass(frozen=True)
class Build:
    """The outcome of `build_engines`: the engines, and whether they were there already."""

    engines: BuiltEngines
    already_built: bool


def build_engines(
    bundle: Bundle,
    backend: str | None = None,
    target: str | None = None,
    limits: Limits | None = None,
    options: BuildOptions | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> Build:
    """Build the engines of every stage, unless they are there.

    One build at a time runs in a bundle; a second one waits, and then finds the engines of the first.

    Args:
        bundle: whose graphs are built.
        backend: one of `BUILD_BACKENDS`; None is the first of them that can build here.
        target: see `canonical_target`; None is "portable" for tensorrt-rtx and the GPU here for tensorrt.
        limits: the largest sizes the engines shall take; not for a CPU, where there are none.
        options: of the build.
        force: whether to build engines that are there.
        progress: called in this thread.

    Raises:
        InputError: unknown backend or target, one that cannot be built for here, a missing library or one
            outside its range, an option or limit it does not have, an altered bundle, a graph that is
            refused, a bundle of bfloat16 for onnxruntime, or a store that cannot be written.
        KeyboardInterrupt: interrupted; nothing is left of the build.
    """
    if backend is None:
        backend = default_backend(bundle)
    limits, options = limits or Limits(), options or BuildOptions()
    version = installed_version(backend)
    gpu = None
    stage_names = built_stages(backend, bundle.manifest)
    profiles: dict[str, tuple[Profile, ...]] = dict.fromkeys(stage_names, ())
    if backend in TENSORRT_BACKENDS:
        check_runs_on_gpu(bundle, backend)
        built_for, gpu = gpu_target(load_library(backend), target, options)
        profiles = stage_profiles(bundle.manifest, limits)
    else:
        built_for = cpu_target(backend, target, limits, options)
        check_builds_on_cpu(bundle, backend)
    computed = bundle_arithmetic(bundle) if backend == "openvino" else None
    store = bundle.path / ENGINES_FOLDER
    # Its stages are added as they are built.
    engines = BuiltEngines(
        store,
        backend,
        version,
        built_for,
        limits,
        {},
        options,
        gpu=gpu.name if gpu else None,
        host=compiled_for(computed) if computed else None,
    )
    only_on = engines.only_gpu or engines.host
    key = build_key(graph_hashes(backend, bundle.manifest), profiles, options, only_on)
    engines = replace(engines, folder=store / f"{backend}-{version}-{built_for}-{key}")
    with watch_interruption() as interruption:

        def report(stage: str, step: str, fraction: float) -> None:
            interruption.check()
            if progress is not None:
                progress(stage, step, fraction)

        with _locked(store, report):
            if not force and is_complete(engines.folder):
                return Build(read_engines(engines.folder), already_built=True)
            with _unfinished(engines.folder) as work:
                unfinished = replace(engines, folder=work)
                stages = {
                    stage: _build_stage(bundle, unfinished, stage, profiles[stage], computed, report)
                    for stage in stage_names
                }
                now = datetime.now(UTC).isoformat(timespec="microseconds")
                write_engines(replace(unfinished, stages=stages, built=now))
                interruption.check()
            return Build(read_engines(engines.folder), already_built=False)


def build_key(
    graphs: Mapping[str, str],
    profiles: Mapping[str, Sequence[Profile]],
    options: BuildOptions,
    only_on: str | None = None,
) -> str:
    """Hash of `graph_hashes`, profiles, options, and the only GPU or host they are for: 12 hex digits."""
    content = {
        "graphs": dict(graphs),
        "profiles": {name: list(several) for name, several in profiles.items()},
        "options": msgspec.structs.asdict(options),
        "gpu": only_on,
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:_KEY_DIGITS]


def _build_stage(
    bundle: Bundle,
    engines: BuiltEngines,
    name: str,
    profiles: Sequence[Profile],
    computed: Arithmetic | None,
    report: Progress,
) -> BuiltStage:
    """Build one stage into the folder of `engines`, with its record; `computed` is OpenVINO's."""
    started = time.perf_counter()
    stage = bundle.manifest.stages[name]
    report(name, "reading", 0.0)
    graph = bundle.verified(stage.file)
    network = NetworkSummary()
    if engines.backend in TENSORRT_BACKENDS:
        file = engines.folder / f"{name}.engine"
        library = load_library(engines.backend)
        times = f"{library.backend}-{library.version}-{engines.target}.timing"
        recipe = Recipe(library, engines.options, engines.target, engines.folder.with_name(times))
        plan, network = build_plan(recipe, graph, profiles, partial(report, name))
        file.write_bytes(plan)
    elif computed is not None:
        file = engines.folder / f"{name}.blob"
        plan, network = run_in_worker(
            lambda: compile_plan(bundle, name, computed), lambda: report(name, "compiling", 0.0), lambda: None
        )
        file.write_bytes(plan)
    else:
        file = engines.folder / f"{name}.onnx"
        optimise_graph(graph, stage, file, partial(report, name))
    content = file_record(file)
    built = BuiltStage(
        name=name,
        plan=PlanRecord(file.name, content.sha256, content.bytes),
        onnx=GraphRecord(bundle.manifest.files[stage.file].sha256),
        profiles=tuple(profiles),
        inputs=stage.inputs,
        outputs=stage.outputs,
        network=network,
        seconds=round(time.perf_counter() - started, 3),
    )
    write_stage(engines, built)
    report(name, "built", 1.0)
    return built


def optimise_graph(graph: Path, stage: Stage, output: Path, report: Callable[[str, float], None]) -> None:
    """Write an ONNX graph to `output` as ONNX Runtime optimises it for any CPU.

    `stage` is the manifest's description of the graph. `report` is called with what is being done and the
    fraction that is done.

    Raises:
        InputError: ONNX Runtime cannot load the graph or write the file, or the graph has other inputs or
            outputs than `stage`.
    """
    session = run_in_worker(
        lambda: open_session(graph, graph, None, [CPU_PROVIDER], output),
        lambda: report("optimising", 0.0),
        lambda: None,
    )
    check_session(session, stage, graph)


@contextmanager
def _locked(store: Path, report: Progress) -> Iterator[None]:
    """Hold the lock of a bundle's store, and create the store if it is not there.

    The lock file is never removed: a build that waits for it and one that creates it anew could both go on.
    """
    try:
        store.mkdir(exist_ok=True)
        lock = FileLock(store / LOCK_FILE)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            report("", "waiting for another build in this bundle", 0.0)
            lock.acquire(poll_interval=0.2)
    except OSError as error:
        raise _not_writable(store, error) from error
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _unfinished(folder: Path) -> Iterator[Path]:
    """Yield an empty folder beside `folder`, and move it there when the block ends well; else remove it."""
    # This build holds the lock, so the processes that left unfinished folders were killed.
    for left in folder.parent.glob(f"{_UNFINISHED}*"):
        shutil.rmtree(left, ignore_errors=True)
    work = folder.with_name(f"{_UNFINISHED}{uuid.uuid4().hex}")
    try:
        work.mkdir()
        yield work
        if exists(folder):
            folder.rename(folder.with_name(f"{_UNFINISHED}{uuid.uuid4().hex}"))
        work.rename(folder)
    except OSError as error:
        raise _not_writable(folder.parent, error) from error
    finally:
        for left in folder.parent.glob(f"{_UNFINISHED}*"):
            shutil.rmtree(left, ignore_errors=True)


def _not_writable(store: Path, error: OSError) -> InputError:
    reason = error.strerror or str(error)
    return InputError(
        f"{store}: engines cannot be written ({reason}), nothing is left of this build; free space there, or "
        "make the folder writable"
    )
