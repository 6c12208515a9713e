"""The interface of every backend: the stages of a bundle, each run on named arrays."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ..bundle import REMEDY
from ..errors import InputError

# bfloat16 is no type of numpy's, so a dtype here is a name.
ITEM_BYTES = {"uint8": 1, "float16": 2, "bfloat16": 2, "int32": 4, "float32": 4, "int64": 8}


@dataclass(frozen=True, eq=False)
class DeviceArray:
    """A C-contiguous array on a device.

    Attributes:
        owner: the object that keeps the memory; referred to by every array that shows a part of it.
        pointer: address of the first element on the device.
        dtype: one of `ITEM_BYTES`.
        shape: sizes of the axes.
    """

    owner: object
    pointer: int
    dtype: str
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Bytes that the elements take."""
        return math.prod(self.shape) * ITEM_BYTES[self.dtype]

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> "DeviceArray":
        """A part along the first axis, without a copy; steps other than 1 are not possible."""
        start, stop, step = rows.indices(len(self))
        if step != 1:
            raise IndexError(f"step {step}: an array on a device is cut into contiguous parts only")
        row_bytes = math.prod(self.shape[1:]) * ITEM_BYTES[self.dtype]
        shape = (max(0, stop - start), *self.shape[1:])
        return replace(self, pointer=self.pointer + start * row_bytes, shape=shape)


def signature(name: str, kind: str, shape: Sequence[int | str | None]) -> str:
    """Name, type and shape of an input or output, with a question mark for every dynamic axis."""
    sizes = ", ".join(str(size) if isinstance(size, int) else "?" for size in shape)
    return f"{name} {kind} ({sizes})"


def check_signatures(file: Path, side: str, actual: Sequence[str], stated: Sequence[str]) -> None:
    """Compare the signatures of a graph's "inputs" or "outputs" with those that the manifest states.

    Raises:
        InputError: they differ.
    """
    if actual != stated:
        raise InputError(
            f"{file}: its {side} are {', '.join(actual)}, but the manifest says {', '.join(stated)}; {REMEDY}"
        )


# What goes into a stage and comes out of it: on the host, or where the backend computes.
Value = np.ndarray | DeviceArray


class Engine(Protocol):
    """A stage ready to run. Safe to use from several threads at once."""

    @property
    def name(self) -> str:
        """Name of the stage, for example "decode1"."""

    def run(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Run the stage on values whose names, dtypes and shapes are those of the manifest, C-contiguous.

        The outputs of `stages.HOST_OUTPUTS` are numpy arrays. Every other one is a `Value`, which callers
        pass to the next stage unchanged or sliced along its first axis, so that a backend may keep it on its
        device. A backend with a device leaves out the outputs of `stages.DEBUG_OUTPUTS`.

        Raises:
            InputError: a shape is outside what the engine was built for, or the device's memory is too small.
        """


class Engines(Protocol):
    """The engines of one bundle by stage name. Safe to use from several threads at once."""

    @property
    def backend(self) -> str:
        """Name of the backend that runs the stages; never "auto"."""

    @property
    def reason(self) -> str:
        """Why this backend was taken, as one phrase."""

    @property
    def buckets(self) -> tuple[int, ...] | None:
        """Rising category counts to pad kept indices to with -1.

        None on a CPU, where padding gains nothing and all values are numpy arrays.
        """

    @property
    def decodes_at_once(self) -> int:
        """Images that a stream decodes at a time: several where a device waits while the host rejects."""

    @property
    def images_at_once(self) -> int | None:
        """Images that a stream takes through all stages side by side; None where its steps overlap instead.

        On a CPU one stage keeps all cores busy, and steps that overlap take them from each other.
        """

    @property
    def folds_vocabularies(self) -> bool:
        """Whether `scout_folded`, in the place of `scout`, is there and faster."""

    @property
    def label_stage(self) -> str:
        """Name of the stage that labels: "label", or on a GPU "label_gpu" where the bundle has it."""

    def stack(self, values: Sequence[Value]) -> Value:
        """Concatenate arrays along their first axis, where the backend keeps them."""

    def to_device(self, array: np.ndarray) -> Value:
        """Copy an array that stages take again and again to where the backend computes."""

    def warmed_up(self) -> None:
        """Called once every stage has run at every size, to keep for the next start what was compiled."""

    def to_host(self, value: Value) -> np.ndarray:
        """What a stage gave, or `stack`, as an array on the host; waits until it is there."""

    def __getitem__(self, stage: str) -> Engine:
        """The engine of a stage."""


def fetch(engines: Engines, values: Sequence[Value]) -> list[np.ndarray]:
    """Several values as arrays on the host, with one copy from the device and one wait."""
    packed = engines.to_host(engines.stack([_as_bytes(value) for value in values]))
    arrays = []
    start = 0
    for value in values:
        end = start + value.nbytes
        arrays.append(packed[start:end].view(value.dtype).reshape(value.shape))
        start = end
    return arrays


def _as_bytes(value: Value) -> Value:
    """A C-contiguous value as uint8 of one axis, without a copy."""
    if isinstance(value, DeviceArray):
        return replace(value, dtype="uint8", shape=(value.nbytes,))
    return value.reshape(-1).view(np.uint8)


class DeviceEngine(Engine, Protocol):
    """A stage on a device."""

    def run_on_device(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """As `run`, but all outputs stay on the device and nothing is waited for.

        Raises:
            InputError: as `run`.
        """


class DeviceEngines(Engines, Protocol):
    """The engines of one bundle on a device."""

    def download(self, value: Any) -> Callable[[], np.ndarray]:
        """Start to copy an array to the host; the function that is returned waits for it.

        Raises:
            InputError: the host's memory is too small.
        """

    def __getitem__(self, stage: str) -> DeviceEngine:
        """The engine of a stage."""
