"""Built engines as objects and as JSON: build.json describes a set, a side-car each of its plans."""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from .build_network import NetworkSummary
from .build_options import BuildOptions
from .bundle import Tensor
from .profiles import Limits, Profile

FORMAT = 1
BUILD_FILE = "build.json"

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
    inputs: tuple[Tensor, ...] = ()
    outputs: tuple[Tensor, ...] = ()
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


def _tensor(data: Mapping[str, Any]) -> Tensor:
    return Tensor(str(data["name"]), str(data["dtype"]), tuple(data["shape"]))


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
