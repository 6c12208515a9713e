"""The built engines in BUNDLE/engines: their records, the choice of a set that fits, and checks of the plans.

A set is one folder, `<backend>-<version>-<target>-<key>`, whose key is a hash of all that it was built
from. It holds a plan per stage with a record beside it, and build.json, which describes the set.
"""

import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from ..bundle import ENGINES_FOLDER, Bundle, Manifest, Sha256, TensorSpec
from ..errors import InputError
from ..files import is_file, is_folder, read_file
from ..records import Record, RecordError, decode_record
from ..stages import BY_NAME, gpu_stages
from .ort.session import library as onnxruntime_library
from .profiles import Limits, Profile
from .targets import (
    ANY_TARGET,
    CPU,
    CURRENT,
    PORTABLE,
    TENSORRT_BACKENDS,
    BuildOptions,
    build_command,
    capability_name,
    target_fits,
)

if TYPE_CHECKING:
    from .device.gpu import Gpu

FORMAT = 1
BUILD_FILE = "build.json"
BUILD_BACKENDS = (*TENSORRT_BACKENDS, "openvino", "onnxruntime")


class NetworkSummary(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The layers of a network.

    Attributes:
        layers: how many there are; None where that is not known.
        precisions: layer type to the data type of its first output to the number of such layers.
        convolution_weights: data type to the number of weights in convolutions of it.
    """

    layers: int | None = None
    precisions: Mapping[str, Mapping[str, int]] = msgspec.field(default_factory=dict)
    convolution_weights: Mapping[str, int] = msgspec.field(default_factory=dict)


class GraphRecord(msgspec.Struct, frozen=True):
    """The ONNX graph that a plan was built from, by its sha256."""

    sha256: Sha256


class PlanRecord(msgspec.Struct, frozen=True):
    """The file of a plan: its name, sha256, and size in bytes."""

    file: str
    sha256: Sha256
    bytes: int


class BuiltStage(msgspec.Struct, frozen=True):
    """One plan: a serialized TensorRT engine, OpenVINO's compiled model, or a graph of ONNX Runtime's.

    Attributes:
        name: of the stage.
        plan: its file.
        onnx: the graph it was built from.
        profiles: in the order that the engine counts them; none for a CPU.
        inputs: as the manifest said when it was built.
        outputs: likewise.
        network: the layers it was built from.
        seconds: how long the build took.
    """

    name: str = msgspec.field(name="stage")
    plan: PlanRecord
    onnx: GraphRecord
    profiles: tuple[Profile, ...]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    network: NetworkSummary
    seconds: float

    def __post_init__(self) -> None:
        axes = {tensor.name: len(tensor.shape) for tensor in self.inputs}
        for profile in self.profiles:
            for name, shapes in profile.items():
                if any(len(shape) != axes.get(name) for shape in shapes):
                    raise ValueError("the shapes of a profile do not fit the inputs")


@dataclass(frozen=True)
class BuiltEngines:
    """A set of plans, one per stage, built together.

    Attributes:
        folder: BUNDLE/engines/<backend>-<version>-<target>-<key>.
        backend: one of `BUILD_BACKENDS`.
        version: of the library that built them.
        target: "sm86" and the like, "portable", "ampere-plus" or "cpu".
        limits: the largest sizes they take.
        stages: by name.
        options: they were built with.
        built: when, UTC, ISO 8601.
        gpu: name of the GPU they were built on; None where none was used.
        host: the only processor that they are for, and what they compute; None where that does not matter.
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
    host: str | None = None

    @property
    def only_gpu(self) -> str | None:
        """Name of the one GPU model that they are for; None where `target` says all that they run on.

        TensorRT times its kernels on the GPU at hand, and takes them for no other unless an option says so.
        """
        bound = self.backend == "tensorrt" and self.options.hardware_compatibility is None
        return self.gpu if bound else None

    def plan_file(self, stage: str) -> Path:
        """The file of a stage's plan."""
        return self.folder / self.stages[stage].plan.file

    @property
    def bundle(self) -> Path:
        """The bundle's folder: its engines lie two folders below it."""
        return self.folder.parent.parent

    @property
    def command(self) -> str:
        """The command that builds them again."""
        return build_command(self.bundle, self.backend, self.target, self.limits, self.options)


class _SetRecord(msgspec.Struct, frozen=True):
    """The fields of build.json; `stages` are the names of the plan files."""

    backend: str
    version: str
    target: str
    limits: Limits
    options: BuildOptions
    built: str
    gpu: str | None
    stages: Mapping[str, str]
    host: str | None = None


def write_stage(engines: BuiltEngines, stage: BuiltStage) -> None:
    """Write the record of a plan beside it; raises OSError."""
    target = {"backend": engines.backend, "version": engines.version, "target": engines.target}
    options = {"options": msgspec.structs.asdict(engines.options)}
    file = (engines.folder / stage.plan.file).with_suffix(".json")
    _write(file, target | msgspec.to_builtins(stage) | options)


def write_engines(engines: BuiltEngines) -> None:
    """Write build.json, which makes a folder a set of engines; raises OSError."""
    content = {name: getattr(engines, name) for name in _SetRecord.__struct_fields__}
    content["stages"] = {name: stage.plan.file for name, stage in engines.stages.items()}
    _write(engines.folder / BUILD_FILE, msgspec.to_builtins(content))


def _write(file: Path, content: Mapping[str, Any]) -> None:
    file.write_text(json.dumps({"format": FORMAT, **content}, indent=1) + "\n", encoding="utf-8")


def read_engines(folder: Path) -> BuiltEngines:
    """The set of engines in a folder, from its JSON files alone.

    Raises:
        RecordError: one of them is missing, of another format or malformed.
    """
    record = _read(folder / BUILD_FILE, _SetRecord)
    stages = {}
    for name, plan in record.stages.items():
        # A record from elsewhere must not lead outside its own folder.
        if not plan or Path(plan).name != plan:
            raise RecordError(f"{folder / BUILD_FILE}: is malformed (the file name {plan!r} is not plain)")
        file = (folder / plan).with_suffix(".json")
        stages[name] = stage = _read(file, BuiltStage)
        if (stage.name, stage.plan.file) != (name, plan):
            raise RecordError(f"{file}: is malformed (it is not of the stage {name!r} and the file {plan!r})")
    fields = msgspec.structs.asdict(record) | {"stages": stages}
    return BuiltEngines(folder=folder, **fields)


def _read(file: Path, kind: type[Record]) -> Record:
    try:
        return decode_record(read_file(file), kind, FORMAT)
    except OSError as error:
        raise RecordError(f"{file}: cannot be read ({error.strerror})") from error
    except RecordError as error:
        raise RecordError(f"{file}: is malformed ({error})") from error


def installed_version(backend: str) -> str:
    """Version of the library behind a backend of `BUILD_BACKENDS`.

    Raises:
        InputError: unknown backend, or its library is missing, broken or of a version outside the range.
    """
    if backend not in BUILD_BACKENDS:
        raise InputError(f"backend: {backend!r} builds no engines; choose one of {', '.join(BUILD_BACKENDS)}")
    if backend in TENSORRT_BACKENDS:
        from .trt.library import load_library

        return load_library(backend).version
    if backend == "openvino":
        from .openvino.library import version

        return version()
    return str(onnxruntime_library().__version__)


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
        # Hidden folders are unfinished builds.
        if folder.name.startswith(".") or not is_folder(folder):
            continue
        try:
            sets.append(read_engines(folder))
        except RecordError as error:
            damaged.append(str(error))
    return sorted(sets, key=lambda engines: engines.built, reverse=True), damaged


def find_built(bundle: Bundle, backend: str, gpu: "Gpu | None", host: str | None = None) -> BuiltEngines:
    """The newest set of a backend for the bundle's graphs, the installed version, and a GPU or processor.

    `gpu` is the one to run on; None accepts a set for any. `host` is the one of `BuiltEngines`.

    Raises:
        InputError: there is none, which says what is there instead and the command that builds one; or the
            library does not know the GPU.
    """
    version = installed_version(backend)
    _check_gpu(backend, gpu)
    sets, damaged = list_built(bundle)
    sets = [engines for engines in sets if engines.backend == backend]
    if not sets:
        problem = f"holds no engines for {backend}" + (f" ({'; '.join(damaged)})" if damaged else "")
    elif not (current := [engines for engines in sets if is_built_from(engines, bundle.manifest)]):
        problem = f"its engines for {backend} were built from other graphs than it holds now"
    elif not (usable := [engines for engines in current if _runs_with(engines, version)]):
        problem = f"its engines {_other_version(current, version)}"
    elif not (fitting := [engines for engines in usable if _runs_on(engines, gpu)]):
        problem = f"its engines for {backend} {_other_gpu(usable, gpu)}"
    elif not (for_host := [engines for engines in fitting if engines.host == host]):
        problem = f"its engines for {backend} are for {fitting[0].host}, not for {host}"
    else:
        return for_host[0]
    similar = (sets[0].limits, sets[0].options) if sets else ()
    command = build_command(bundle.path, backend, _default_target(backend, gpu), *similar)
    raise InputError(f"{bundle.path}: {problem}; run `{command}`")


def check_runs_here(engines: BuiltEngines, gpu: "Gpu") -> None:
    """Refuse engines of `TENSORRT_BACKENDS` that were built for another version or GPU.

    Raises:
        InputError: they were, which names both and the command that builds engines for this machine; or the
            library does not know the GPU.
    """
    version = installed_version(engines.backend)
    _check_gpu(engines.backend, gpu)
    if not _runs_with(engines, version):
        problem = _other_version([engines], version)
    elif not _runs_on(engines, gpu):
        problem = _other_gpu([engines], gpu)
    else:
        return
    target = _default_target(engines.backend, gpu)
    command = build_command(engines.bundle, engines.backend, target, engines.limits, engines.options)
    raise InputError(f"{engines.folder}: {problem}; run `{command}`")


def read_plan(engines: BuiltEngines, stage: str) -> bytes:
    """The plan of a stage, checked to be what was built.

    Raises:
        InputError: it is missing, truncated or altered; names the command that builds it again.
    """
    file, expected = engines.plan_file(stage), engines.stages[stage].plan
    remedy = f"build it again with `{engines.command} --force`"
    try:
        plan = read_file(file)
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror}); {remedy}") from error
    digest = hashlib.sha256(plan).hexdigest()
    if (len(plan), digest) != (expected.bytes, expected.sha256):
        raise InputError(
            f"{file}: was altered after the build ({len(plan)} bytes, sha256 {digest[:12]}…, expected "
            f"{expected.bytes} bytes, {expected.sha256[:12]}…); {remedy}"
        )
    return plan


def built_stages(backend: str, manifest: Manifest) -> tuple[str, ...]:
    """Names of the stages that a set for a backend holds: those that it runs."""
    if backend in TENSORRT_BACKENDS:
        return gpu_stages(manifest.stages)
    return tuple(name for name in manifest.stages if not BY_NAME[name].device_only)


def graph_hashes(backend: str, manifest: Manifest) -> dict[str, str]:
    """Name of each stage that a set for a backend holds, to the sha256 of its graph."""
    return {
        name: manifest.files[manifest.stages[name].file].sha256 for name in built_stages(backend, manifest)
    }


def is_built_from(engines: BuiltEngines, manifest: Manifest) -> bool:
    """Whether engines were built from the graphs that a manifest lists."""
    return graph_hashes(engines.backend, manifest) == {
        name: stage.onnx.sha256 for name, stage in engines.stages.items()
    }


def is_complete(folder: Path) -> bool:
    """Whether a folder holds a readable set whose plans have the sizes they were built with."""
    if not is_file(folder / BUILD_FILE):
        return False
    try:
        engines = read_engines(folder)
        return all(
            engines.plan_file(name).stat().st_size == stage.plan.bytes
            for name, stage in engines.stages.items()
        )
    except (RecordError, OSError):
        return False


def _check_gpu(backend: str, gpu: "Gpu | None") -> None:
    """Refuse a GPU that the library of a backend was not made for; no build can help there."""
    if gpu is not None and backend in TENSORRT_BACKENDS:
        from .trt.library import load_library

        load_library(backend).check_gpu(gpu)


def _default_target(backend: str, gpu: "Gpu | None") -> str:
    if backend not in TENSORRT_BACKENDS:
        return CPU
    from .trt.library import load_library

    library = load_library(backend)
    if gpu is None or not library.builds_for_others:
        return PORTABLE
    name = capability_name(gpu.capability)
    return name if name in library.capabilities() else CURRENT


def _runs_with(engines: BuiltEngines, installed: str) -> bool:
    if engines.version == installed:
        return True
    if not engines.options.version_compatible:
        return False
    built, here = ([int(n) for n in re.findall(r"\d+", text)[:3]] for text in (engines.version, installed))
    return built[:1] == here[:1] and built <= here


def _runs_on(engines: BuiltEngines, gpu: "Gpu | None") -> bool:
    if gpu is None or engines.backend not in TENSORRT_BACKENDS:
        return True
    from .trt.library import load_library

    known = load_library(engines.backend).known_capabilities
    fits = target_fits(engines.target, gpu.capability, known) and engines.only_gpu in (None, gpu.name)
    return fits or ANY_TARGET in os.environ


def _other_version(sets: Sequence[BuiltEngines], installed: str) -> str:
    versions = ", ".join(sorted({engines.version for engines in sets}))
    return f"were built by {sets[0].backend} {versions}, but {installed} is installed"


def _other_gpu(sets: Sequence[BuiltEngines], gpu: "Gpu | None") -> str:
    assert gpu is not None
    targets = {
        f"{engines.target} on {engines.only_gpu}" if engines.only_gpu else engines.target for engines in sets
    }
    here = f"{gpu.name}, is {capability_name(gpu.capability)}"
    return f"were built for {', '.join(sorted(targets))}, but this GPU, {here}"
