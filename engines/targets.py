"""What engines are built for: a GPU by product or compute capability, a set of GPUs, this GPU, or the CPU."""

import re
from collections.abc import Mapping

from ..errors import InputError

Capability = tuple[int, int]

PORTABLE = "portable"
AMPERE_PLUS = "ampere-plus"
CURRENT = "current"
CPU = "cpu"

# Turing is left out of both by TensorRT-RTX and TensorRT.
_SETS = {PORTABLE: (8, 0), AMPERE_PLUS: (8, 0)}

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


_CAPABILITIES = tuple(capability_name(capability) for capability in sorted(set(GPUS.values())))


def canonical_target(text: str) -> str:
    """What a user calls a target as "sm86" and the like, "portable", "current" or "cpu".

    Case, spaces and dashes do not matter, nor does "NVIDIA" or "RTX" in front of a product's name.

    Raises:
        InputError: nothing is called so; lists what is.
    """
    plain = re.sub(r"[\s_-]", "", text.lower()).removeprefix("nvidia")
    if plain in (PORTABLE, CURRENT, CPU) or plain in _CAPABILITIES:
        return plain
    for name in (plain, plain.removeprefix("rtx")):
        if name in GPUS:
            return capability_name(GPUS[name])
    raise InputError(
        f"target: {text!r} is unknown; choose {PORTABLE}, {CURRENT}, {CPU}, a compute capability "
        f"({', '.join(_CAPABILITIES)}) or a GPU ({', '.join(GPUS)})"
    )


def target_fits(target: str, capability: Capability) -> bool:
    """Whether engines built for `target` are meant to run on a GPU of this compute capability."""
    if target in _SETS:
        return capability >= _SETS[target]
    return named_capability(target) == capability
