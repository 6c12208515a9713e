"""The store of built engines in BUNDLE/engines: which set fits, and plans checked before they are used.

A set is one folder, `<backend>-<version>-<target>-<key>`, whose key is over all that went into it.
"""

import hashlib
import json
import os
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ..bundle import Bundle, Manifest, TensorSpec
from ..errors import InputError
from ..files import is_file, is_folder
from .build.tensorrt import NetworkSummary
from .ort.session import library as onnxruntime_library
from .profiles import Limits, Profile
from .targets import CPU, CURRENT, PORTABLE, BuildOptions, capability_name, target_fits
from .trt.library import TENSORRT_BACKENDS, load_library

if TYPE_CHECKING:
    from .device.cuda import Gpu

FORMAT = 1
BUILD_FILE = "build.json"
# Environment variable that turns off our own refusal of engines that were built for another GPU.
ANY_TARGET = "SED_TRT_ANY_TARGET"

Value = TypeVar("Value")


class UnreadableError(Exception):
    """A record is missing, is no JSON or lacks a field; the message names the file and says which."""


@dataclass(frozen=True)
class BuiltStage:
    """One plan.

    Attributes:
        name: of the stage.
        file: the plan.
        sha256: of the plan, lower-case hexadecimal.
        bytes: size of the plan.
        profiles: in the order that the engine counts them; none where nothing is dynamic or for a CPU.
        onnx_sha256: of the graph it was built from.
        inputs: as the manifest said when it was built.
        outputs: likewise.
        network: the layers it was built from.
        seconds: how long the build took.
    """

    name: str
    file: Path
    sha256: str
    bytes: int
    profiles: tuple[Profile, ...]
    onnx_sha256: str = ""
    inputs: tuple[TensorSpec, ...] = ()
    outputs: tuple[TensorSpec, ...] = ()
    network: NetworkSummary = field(default_factory=NetworkSummary)
    seconds: float = 0.0


@dataclass(frozen=True)
class BuiltEngines:
    """A set of plans, one per stage, built together.

    Attributes:
        folder: BUNDLE/engines/<backend>-<version>-<target>-<key>.
        backend: "tensorrt", "tensorrt-rtx" or "onnxruntime".
        version: of the library that built them.
        target: "sm86" and the like, "portable", "ampere-plus" or "cpu".
        limits: the largest sizes they take.
        stages: by name.
        options: they were built with.
        built: when, UTC, ISO 8601.
        gpu: name of the GPU they were built on; None where none was used.
    """

    folder: Path
    backend: str
    version: str
    target: str
    limits: Limits
    stages: Mapping[str, BuiltStage]
    options: BuildOptions = field(default_factory=BuildOptions)
    built: str = ""
    gpu: str | None = None

    @property
    def only_gpu(self) -> str | None:
        """Name of the one GPU model that they are for; None where `target` says all that it takes.

        TensorRT times its kernels on the GPU at hand, and takes them for no other unless it is told to.
        """
        bound = self.backend == "tensorrt" and self.options.hardware_compatibility is None
        return self.gpu if bound else None


def write_stage(engines: BuiltEngines, stage: BuiltStage) -> None:
    """Write the side-car of a plan beside it; raises OSError."""
    content = {
        "format": FORMAT,
        "stage": stage.name,
        "backend": engines.backend,
        "version": engines.version,
        "target": engines.target,
        "onnx": {"sha256": stage.onnx_sha256},
        "plan": {"file": stage.file.name, "sha256": stage.sha256, "bytes": stage.bytes},
        "profiles": [profile.shapes for profile in stage.profiles],
        "options": asdict(engines.options),
        "inputs": [asdict(tensor) for tensor in stage.inputs],
        "outputs": [asdict(tensor) for tensor in stage.outputs],
        "network": asdict(stage.network),
        "seconds": round(stage.seconds, 3),
    }
    _write(stage.file.with_suffix(".json"), content)


def write_engines(engines: BuiltEngines) -> None:
    """Write build.json, which makes a folder a set of engines; raises OSError."""
    content = {
        "format": FORMAT,
        "backend": engines.backend,
        "version": engines.version,
        "target": engines.target,
        "limits": asdict(engines.limits),
        "options": asdict(engines.options),
        "built": engines.built,
        "gpu": engines.gpu,
        "stages": {name: stage.file.name for name, stage in engines.stages.items()},
    }
    _write(engines.folder / BUILD_FILE, content)


def read_engines(folder: Path) -> BuiltEngines:
    """The set of engines in a folder, from its JSON files alone.

    Raises:
        UnreadableError: one of them is missing, of another format or malformed.
    """

    def engines(data: dict[str, Any]) -> BuiltEngines:
        return BuiltEngines(
            folder,
            str(data["backend"]),
            str(data["version"]),
            str(data["target"]),
            Limits(**data["limits"]),
            {
                name: _read(_sidecar(folder, file), _stage(folder, file))
                for name, file in data["stages"].items()
            },
            BuildOptions(**data["options"]),
            str(data["built"]),
            data["gpu"],
        )

    return _read(folder / BUILD_FILE, engines)


def _sidecar(folder: Path, file: str) -> Path:
    # A record from elsewhere must not lead outside its own folder.
    if Path(file).name != file:
        raise ValueError(f"the file name {file!r} is not a plain name")
    return (folder / file).with_suffix(".json")


def _stage(folder: Path, file: str) -> Callable[[dict[str, Any]], BuiltStage]:
    def stage(data: dict[str, Any]) -> BuiltStage:
        return BuiltStage(
            str(data["stage"]),
            folder / file,
            str(data["plan"]["sha256"]),
            int(data["plan"]["bytes"]),
            tuple(_profile(shapes) for shapes in data["profiles"]),
            str(data["onnx"]["sha256"]),
            tuple(_tensor(value) for value in data["inputs"]),
            tuple(_tensor(value) for value in data["outputs"]),
            NetworkSummary(**data["network"]),
            float(data["seconds"]),
        )

    return stage


def _profile(shapes: Mapping[str, Any]) -> Profile:
    ranges = {}
    for name, (least, usual, most) in shapes.items():
        ranges[name] = (tuple(least), tuple(usual), tuple(most))
    return Profile(ranges)


def _tensor(data: Mapping[str, Any]) -> TensorSpec:
    return TensorSpec(str(data["name"]), str(data["dtype"]), tuple(data["shape"]))


def _write(file: Path, content: Mapping[str, Any]) -> None:
    file.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _read(file: Path, make: Callable[[dict[str, Any]], Value]) -> Value:
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
        if data["format"] != FORMAT:
            raise UnreadableError(f"{file}: format {data['format']!r} is unknown, expected {FORMAT}")
        return make(data)
    except OSError as error:
        raise UnreadableError(f"{file}: cannot be read ({error.strerror})") from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UnreadableError(f"{file}: is malformed ({type(error).__name__}: {error})") from error


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
    fits = target_fits(engines.target, gpu.capability) and engines.only_gpu in (None, gpu.name)
    return fits or ANY_TARGET in os.environ


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
