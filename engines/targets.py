"""The target GPU and the options of a build, and the command line that gives both."""

import re
import shlex
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import msgspec

from ..errors import InputError
from .profiles import Limits

# The backends that build engines for NVIDIA GPUs, fastest first.
TENSORRT_BACKENDS = ("tensorrt", "tensorrt-rtx")

# A GPU's compute capability, for example (8, 6).
Capability = tuple[int, int]

PORTABLE = "portable"
AMPERE_PLUS = "ampere-plus"
CURRENT = "current"
CPU = "cpu"

HARDWARE_COMPATIBILITY = (AMPERE_PLUS, "same-capability")
OPTIMIZATION_LEVELS = range(6)

# Environment variable: where it is set, TensorRT itself decides whether engines run on a GPU that they were
# not built for, or that its version was not made for. The GPU check sets it to find out which do.
ANY_TARGET = "SED_TRT_ANY_TARGET"

# The targets that stand for many GPUs leave out Turing, which comes before this compute capability.
_AMPERE = (8, 0)

GPUS: Mapping[str, Capability] = {
    "t4": (7, 5),
    "rtx2080": (7, 5),
    "rtx2080ti": (7, 5),
    "a30": (8, 0),
    "a100": (8, 0),
    "a2": (8, 6),
    "a10": (8, 6),
    "a10g": (8, 6),
    "a16": (8, 6),
    "a40": (8, 6),
    "a4000": (8, 6),
    "a5000": (8, 6),
    "a6000": (8, 6),
    "rtx3060": (8, 6),
    "rtx3070": (8, 6),
    "rtx3080": (8, 6),
    "rtx3090": (8, 6),
    "orin": (8, 7),
    "l4": (8, 9),
    "l40": (8, 9),
    "l40s": (8, 9),
    "rtx4000ada": (8, 9),
    "rtx6000ada": (8, 9),
    "rtx4060": (8, 9),
    "rtx4070": (8, 9),
    "rtx4080": (8, 9),
    "rtx4090": (8, 9),
    "gh200": (9, 0),
    "h100": (9, 0),
    "h200": (9, 0),
    "b200": (10, 0),
    "gb200": (10, 0),
    "b300": (10, 3),
    "thor": (11, 0),
    "rtx5070": (12, 0),
    "rtx5080": (12, 0),
    "rtx5090": (12, 0),
    "rtxpro6000": (12, 0),
    "gb10": (12, 1),
}


def capability_name(capability: Capability) -> str:
    """The target's name of a compute capability: (8, 6) is "sm86"."""
    return f"sm{capability[0]}{capability[1]}"


def named_capability(target: str) -> Capability | None:
    """The inverse of `capability_name`; None for a target that is no single compute capability."""
    match = re.fullmatch(r"sm(\d+)(\d)", target)
    return (int(match[1]), int(match[2])) if match else None


def canonical_target(text: str) -> str:
    """The name of a target as a user wrote it, as "sm86" and the like, "portable", "current" or "cpu".

    Case, spaces and dashes do not matter, nor do "NVIDIA", "GeForce" and "RTX" in front of a product's name,
    nor its form factor and memory behind it: the names that nvidia-smi prints are understood.

    Raises:
        InputError: unknown target; lists the known ones.
    """
    plain = re.sub(r"[\s_-]", "", text.lower()).removeprefix("nvidia").removeprefix("geforce")
    plain = re.sub(r"(generation|sxm\d?|pcie|nvl|hbm\de?|\d+gb)+$", "", plain)
    capabilities = [capability_name(capability) for capability in sorted(set(GPUS.values()))]
    if plain in (PORTABLE, CURRENT, CPU, *capabilities):
        return plain
    for name in (plain, plain.removeprefix("rtx")):
        if name in GPUS:
            return capability_name(GPUS[name])
    raise InputError(
        f"target: {text!r} is unknown; choose {PORTABLE}, {CURRENT}, {CPU}, a compute capability "
        f"({', '.join(capabilities)}) or a GPU ({', '.join(GPUS)})"
    )


def target_fits(target: str, capability: Capability, known: Collection[Capability] = ()) -> bool:
    """Whether engines built for `target` are meant to run on a GPU of this compute capability.

    `known` are the compute capabilities that the version of the library was made for: "portable" is for those
    of them that are not Turing, and for no others, though they may be later.
    """
    if target == PORTABLE:
        return capability in known and capability >= _AMPERE
    if target == AMPERE_PLUS:
        return capability >= _AMPERE
    return named_capability(target) == capability


class BuildOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Options of a build; None leaves the library's default. No library has them all: see `refuse`.

    Attributes:
        workspace: bytes of scratch memory that a kernel may use.
        optimization_level: 0 (builds fast) to 5 (runs fast).
        timing_cache: whether to keep measured kernel times beside the engines, for the next build.
        hardware_compatibility: other GPUs that shall run the engines, more slowly: "ampere-plus" is compute
            capability 8.0 and later, "same-capability" is every GPU with the compute capability of this one.
        version_compatible: whether later versions of the same major version shall run the engines.
        refit: whether weights can be replaced in a built engine.

    Raises:
        InputError: a value is out of its range.
    """

    workspace: int | None = None
    optimization_level: int | None = None
    timing_cache: bool | None = None
    hardware_compatibility: str | None = None
    version_compatible: bool | None = None
    refit: bool = False

    def __post_init__(self) -> None:
        if self.workspace is not None and self.workspace < 1:
            raise InputError(f"workspace: {self.workspace} bytes is too little, expected at least 1")
        level = self.optimization_level
        if level is not None and level not in OPTIMIZATION_LEVELS:
            raise InputError(f"optimization level: {level} is unknown, expected 0 to 5")
        other = self.hardware_compatibility
        if other is not None and other not in HARDWARE_COMPATIBILITY:
            raise InputError(
                f"hardware compatibility: {other!r} is unknown; choose {' or '.join(HARDWARE_COMPATIBILITY)}"
            )

    def chosen(self) -> tuple[str, ...]:
        """Names of the options that are not left at the library's default."""
        return tuple(
            name for name, value in msgspec.structs.asdict(self).items() if value not in (None, False)
        )

    def refuse(self, backend: str, missing: frozenset[str]) -> None:
        """Refuse options that a library does not have.

        Raises:
            InputError: an option of `missing` is chosen.
        """
        if refused := [name for name in self.chosen() if name in missing]:
            raise no_such_option(refused[0], backend)


def no_such_option(name: str, backend: str) -> InputError:
    """The error of an option, by the name of its field, that a backend does not have."""
    return InputError(f"option {name.replace('_', ' ')}: {backend} has no such option; leave it out")


def build_command(
    bundle: Path, backend: str, target: str, limits: Limits | None = None, options: BuildOptions | None = None
) -> str:
    """The command that builds such engines."""
    command = ["sed-trt", "build", shlex.quote(str(bundle)), "--backend", backend]
    # The CPU needs no naming, and full TensorRT builds for the GPU it is on, whatever else the engines suit.
    if backend != "tensorrt" and target != CPU:
        command += ["--target", target]
    for chosen, default in ((limits or Limits(), Limits()), (options or BuildOptions(), BuildOptions())):
        for name, value in msgspec.structs.asdict(chosen).items():
            if value != getattr(default, name):
                command += _flag(name, value)
    return " ".join(command)


def _flag(name: str, value: Any) -> list[str]:
    flag = name.replace("_", "-")
    if isinstance(value, bool):
        return [f"--{flag}" if value else f"--no-{flag}"]
    return [f"--{flag}", str(value)]
