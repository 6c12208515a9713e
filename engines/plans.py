"""The store of built engines in BUNDLE/engines: which set fits, and plans checked before they are used.

A set is one folder, `<backend>-<version>-<target>-<key>`, whose key is over all that went into it.
"""

import hashlib
import json
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from ..paths import is_file, is_folder
from .build_options import BuildOptions
from .bundle import Bundle, Manifest
from .onnxruntime_engine import library as onnxruntime_library
from .plan_record import BUILD_FILE, BuiltEngines, BuiltStage, UnreadableError, read_engines
from .profiles import Limits, Profile
from .targets import CPU, CURRENT, PORTABLE, capability_name, target_fits
from .trt_library import TENSORRT_BACKENDS, load_library

if TYPE_CHECKING:
    from .gpu import Gpu

__all__ = ["BuiltEngines", "BuiltStage", "find_built", "list_built", "read_plan"]

ENGINES_FOLDER = "engines"
BUILD_BACKENDS = (*TENSORRT_BACKENDS, "onnxruntime")
_KEY_DIGITS = 12


def installed_version(backend: str) -> str:
    """Version of the library behind a backend of `BUILD_BACKENDS`.

    Raises:
        InputError: unknown backend, or its library is missing, broken or of a version outside the range.
    """
    if backend not in BUILD_BACKENDS:
        raise InputError(f"backend: {backend!r} builds no engines; choose one of {', '.join(BUILD_BACKENDS)}")
    if backend in TENSORRT_BACKENDS:
        return load_library(backend).version
    return str(onnxruntime_library().__version__)


def build_key(
    manifest: Manifest,
    profiles: Mapping[str, Sequence[Profile]],
    options: BuildOptions,
    only_gpu: str | None = None,
) -> str:
    """What a set is built from and for, as 12 hexadecimal digits; see `BuiltEngines.only_gpu`."""
    content = {
        "graphs": {name: manifest.files[stage.file].sha256 for name, stage in manifest.stages.items()},
        "profiles": {name: [profile.shapes for profile in several] for name, several in profiles.items()},
        "options": asdict(options),
        "gpu": only_gpu,
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:_KEY_DIGITS]


def build_command(
    bundle: Path, backend: str, target: str, limits: Limits | None = None, options: BuildOptions | None = None
) -> str:
    """The command that builds such engines."""
    command = ["sed-trt", "build", shlex.quote(str(bundle)), "--backend", backend]
    # The CPU needs no naming, and full TensorRT builds for the GPU it is on, whatever else the engines suit.
    if backend != "tensorrt" and target != CPU:
        command += ["--target", target]
    for given, usual in ((limits or Limits(), Limits()), (options or BuildOptions(), BuildOptions())):
        for name, value in asdict(given).items():
            if value != getattr(usual, name):
                command += _flag(name, value)
    return " ".join(command)


def _flag(name: str, value: Any) -> list[str]:
    flag = name.replace("_", "-")
    if isinstance(value, bool):
        return [f"--{flag}" if value else f"--no-{flag}"]
    return [f"--{flag}", str(value)]


def list_built(bundle: Bundle) -> tuple[list[BuiltEngines], list[str]]:
    """All sets in BUNDLE/engines, newest first, and for each that cannot be read a line that says why."""
    sets: list[BuiltEngines] = []
    damaged: list[str] = []
    store = bundle.path / ENGINES_FOLDER
    try:
        folders = sorted(store.iterdir()) if is_folder(store) else []
    except OSError as error:
        raise InputError(f"{store}: cannot be listed ({error.strerror}); make it readable") from error
    for folder in folders:
        # Hidden folders are builds that have not come to their end.
        if folder.name.startswith(".") or not is_folder(folder):
            continue
        try:
            sets.append(read_engines(folder))
        except UnreadableError as error:
            damaged.append(str(error))
    return sorted(sets, key=lambda engines: engines.built, reverse=True), damaged


def find_built(bundle: Bundle, backend: str, gpu: "Gpu | None") -> BuiltEngines:
    """The newest set of a backend for the bundle's graphs, the installed version and a GPU.

    `gpu` is the one to run on; None accepts a set for any.

    Raises:
        InputError: there is none; says what was found instead, and the command that builds one.
    """
    version = installed_version(backend)
    sets, damaged = list_built(bundle)
    sets = [engines for engines in sets if engines.backend == backend]
    target = _usual_target(backend, gpu)

    def refusal(found: str) -> InputError:
        like = (sets[0].limits, sets[0].options) if sets else ()
        command = build_command(bundle.path, backend, target, *like)
        return InputError(f"{bundle.path}: {found}; run `{command}`")

    if not sets:
        damage = f" ({'; '.join(damaged)})" if damaged else ""
        raise refusal(f"holds no engines for {backend}{damage}")
    current = [engines for engines in sets if is_built_from(engines, bundle.manifest)]
    if not current:
        raise refusal(f"its engines for {backend} were built from other graphs than it holds now")
    usable = [engines for engines in current if _runs_with(engines, version)]
    if not usable:
        raise refusal(f"its engines {_other_version(current, version)}")
    if gpu is None or backend not in TENSORRT_BACKENDS:
        return usable[0]
    fitting = [engines for engines in usable if _runs_on(engines, gpu)]
    if not fitting:
        raise refusal(f"its engines for {backend} {_other_gpu(usable, gpu)}")
    return fitting[0]


def check_runs_here(engines: BuiltEngines, gpu: "Gpu") -> None:
    """Refuse engines of `TENSORRT_BACKENDS` that the installed version or this GPU does not take.

    Raises:
        InputError: it is so; says what they were built for, and the command that builds such for here.
    """
    version = installed_version(engines.backend)
    if not _runs_with(engines, version):
        found = _other_version([engines], version)
    elif not _runs_on(engines, gpu):
        found = _other_gpu([engines], gpu)
    else:
        return
    target = _usual_target(engines.backend, gpu)
    # The engines of a bundle lie two folders below it.
    bundle = engines.folder.parent.parent
    command = build_command(bundle, engines.backend, target, engines.limits, engines.options)
    raise InputError(f"{engines.folder}: {found}; run `{command}`")


def read_plan(built: BuiltEngines, stage: str) -> bytes:
    """The plan of a stage, which is what was built.

    Raises:
        InputError: it is missing, truncated or altered; names the command that builds it again.
    """
    record = built.stages[stage]
    # The engines of a bundle lie two folders below it.
    bundle = built.folder.parent.parent
    command = build_command(bundle, built.backend, built.target, built.limits, built.options)
    remedy = f"build it again with `{command} --force`"
    try:
        plan = record.file.read_bytes()
    except OSError as error:
        raise InputError(f"{record.file}: cannot be read ({error.strerror}); {remedy}") from error
    if len(plan) != record.bytes:
        raise InputError(
            f"{record.file}: was truncated or altered after the build ({len(plan)} bytes, expected "
            f"{record.bytes}); {remedy}"
        )
    digest = hashlib.sha256(plan).hexdigest()
    if digest != record.sha256:
        raise InputError(
            f"{record.file}: was altered after the build (sha256 {digest[:12]}…, expected "
            f"{record.sha256[:12]}…); {remedy}"
        )
    return plan


def is_built_from(engines: BuiltEngines, manifest: Manifest) -> bool:
    """Whether engines were built from the graphs that a manifest lists."""
    graphs = {name: manifest.files[stage.file].sha256 for name, stage in manifest.stages.items()}
    return graphs == {name: stage.onnx_sha256 for name, stage in engines.stages.items()}


def is_complete(folder: Path) -> bool:
    """Whether a folder holds a readable set whose plans have the sizes they were built with."""
    if not is_file(folder / BUILD_FILE):
        return False
    try:
        stages = read_engines(folder).stages.values()
        return all(stage.file.stat().st_size == stage.bytes for stage in stages)
    except (UnreadableError, OSError):
        return False


def _usual_target(backend: str, gpu: "Gpu | None") -> str:
    if backend not in TENSORRT_BACKENDS:
        return CPU
    if gpu is None or not load_library(backend).builds_for_others:
        return PORTABLE
    name = capability_name(gpu.capability)
    if name in load_library(backend).capabilities():
        return name
    return PORTABLE if target_fits(PORTABLE, gpu.capability) else CURRENT


def _runs_with(engines: BuiltEngines, installed: str) -> bool:
    if engines.version == installed:
        return True
    if not engines.options.version_compatible:
        return False
    built, here = _numbers(engines.version), _numbers(installed)
    return built[0] == here[0] and built <= here


def _runs_on(engines: BuiltEngines, gpu: "Gpu") -> bool:
    return target_fits(engines.target, gpu.capability) and engines.only_gpu in (None, gpu.name)


def _other_version(found: Sequence[BuiltEngines], installed: str) -> str:
    versions = _listed([engines.version for engines in found])
    return f"were built by {found[0].backend} {versions}, but {installed} is installed"


def _other_gpu(found: Sequence[BuiltEngines], gpu: "Gpu") -> str:
    targets = _listed(
        [f"{each.target} on {each.only_gpu}" if each.only_gpu else each.target for each in found]
    )
    return f"were built for {targets}, but this GPU, {gpu.name}, is {capability_name(gpu.capability)}"


def _numbers(version: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", version)[:3]]


def _listed(values: Sequence[str]) -> str:
    return ", ".join(sorted(set(values)))
