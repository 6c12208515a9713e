"""Optimization profiles: the ranges of shapes that an engine is tuned for, and the choice among them.

A wide range makes slow kernels, so the axis that counts categories gets several narrow ones.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..bundle import Manifest, Stage, TensorSpec
from ..errors import InputError

Shape = tuple[int, ...]
Range = tuple[int, int, int]

SENTENCES = 256
BAND_SIDE = 4096
_CATEGORY_RANGES: tuple[Range, ...] = ((1, 16, 32), (33, 64, 128), (129, 256, 1024))
_BUCKETS = (8, 16, 32, 64, 128, 256, 512, 1024)
_USUAL_BATCH = 4
_USUAL_SIDE = 640
# Inputs that come in parts, of any number, so that a build need not know the whole.
_PARTS = {"tokens": SENTENCES, "rows": BAND_SIDE, "columns": BAND_SIDE}
# Categories times rows of a band: with `BAND_SIDE` columns its up-sampled logits take 256 MiB.
_BAND_ROWS = 2**14


@dataclass(frozen=True)
class Limits:
    """The largest sizes that engines take.

    Attributes:
        max_categories: categories of a vocabulary.
        max_batch: pictures that the encoder takes at a time.
        max_side: height and width of a picture in pixels.

    Raises:
        InputError: one is less than 1.
    """

    max_categories: int = 1024
    max_batch: int = 8
    max_side: int = 4096

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value < 1:
                raise InputError(f"{name.replace('_', ' ')}: {value} is too few, expected at least 1")


@dataclass(frozen=True)
class Profile:
    """Shapes of the inputs of a stage that have a dynamic axis, by name: least, tuned for, and largest."""

    shapes: Mapping[str, tuple[Shape, Shape, Shape]]


def category_buckets(max_categories: int) -> tuple[int, ...]:
    """The counts of categories that shapes are padded to, ascending; the last is `max_categories`."""
    return (*(bucket for bucket in _BUCKETS if bucket < max_categories), max_categories)


def label_rows(categories: int) -> int:
    """Most output rows of a band that the stage `label` takes at once, with logits of so many categories."""
    most = (last for _, _, last in _CATEGORY_RANGES if categories <= last)
    return max(1, _BAND_ROWS // next(most, categories))


def stage_profiles(manifest: Manifest, limits: Limits) -> dict[str, tuple[Profile, ...]]:
    """The profiles of every stage, narrowest first; none for a stage without a dynamic axis."""
    return {name: _profiles(stage, limits) for name, stage in manifest.stages.items()}


def choose_profile(profiles: Sequence[Profile], shapes: Mapping[str, Shape], stage: str | None = None) -> int:
    """Index of the narrowest profile that takes the inputs of these shapes.

    `stage` is named in errors.

    Raises:
        InputError: none takes them; names the input, its limit and how to build with a higher one.
    """
    fitting = [index for index, profile in enumerate(profiles) if _fits(profile, shapes)]
    if not fitting:
        raise InputError(_misfit(profiles, shapes, stage))
    return min(fitting, key=lambda index: _volume(profiles[index]))


def _profiles(stage: Stage, limits: Limits) -> tuple[Profile, ...]:
    axes = {size for tensor in stage.inputs for size in tensor.shape if isinstance(size, str)}
    if not axes:
        return ()
    narrow = _narrow_axis(stage.inputs)
    if narrow is None:
        return (_profile(stage.inputs, {axis: _wide(stage.inputs, axis, limits) for axis in axes}),)
    profiles = []
    for least, usual, most in _narrow_ranges(narrow, limits):
        ranges = {axis: _wide(stage.inputs, axis, limits) for axis in axes}
        # What is gathered from holds at least as many categories as what is gathered.
        categories = (1, most, limits.max_categories)
        ranges = {axis: categories if _counts_categories(axis) else wide for axis, wide in ranges.items()}
        ranges |= {axis: _up_to(label_rows(least)) for axis in _row_axes(stage.inputs)}
        profiles.append(_profile(stage.inputs, ranges | {narrow: (least, usual, most)}))
    return tuple(profiles)


def _counts_categories(axis: str) -> bool:
    return axis == "T" or axis.startswith("K")


def _row_axes(inputs: Sequence[TensorSpec]) -> list[str]:
    return [str(tensor.shape[0]) for tensor in inputs if tensor.name == "rows"]


def _up_to(rows: int) -> Range:
    return 1, min(_USUAL_SIDE, rows), rows


def _narrow_axis(inputs: Sequence[TensorSpec]) -> str | None:
    """The axis that most of a stage's work is proportional to, where that is worth narrow profiles."""
    kept = [tensor.shape[0] for tensor in inputs if tensor.name.startswith("kept")]
    dynamic = [size for tensor in inputs for size in tensor.shape if isinstance(size, str)]
    candidates = kept or [axis for axis in dynamic if _counts_categories(axis) or axis == "B"]
    return str(candidates[0]) if candidates else None


def _narrow_ranges(axis: str, limits: Limits) -> list[Range]:
    if axis == "B":
        # One picture at a time is the usual case, and deserves kernels of its own.
        ranges: list[Range] = [(1, 1, 1)]
        most = limits.max_batch
        return ranges if most == 1 else [*ranges, (2, min(_USUAL_BATCH, most), most)]
    most = limits.max_categories
    clipped = [
        (least, min(usual, most), min(last, most)) for least, usual, last in _CATEGORY_RANGES if least <= most
    ]
    least, usual, _ = clipped[-1]
    return [*clipped[:-1], (least, usual, most)]


def _wide(inputs: Sequence[TensorSpec], axis: str, limits: Limits) -> Range:
    names = [tensor.name for tensor in inputs if axis in tensor.shape]
    part = next((_PARTS[name] for name in names if name in _PARTS), None)
    if _counts_categories(axis):
        most, usual = limits.max_categories, 1
    elif axis == "B":
        most, usual = limits.max_batch, 1
    else:
        most = part or limits.max_side
        usual = SENTENCES if axis == "N" else _USUAL_SIDE
    return 1, min(usual, most), most


def _profile(inputs: Sequence[TensorSpec], ranges: Mapping[str, Range]) -> Profile:
    def shape(tensor: TensorSpec, end: int) -> Shape:
        return tuple(ranges[size][end] if isinstance(size, str) else size for size in tensor.shape)

    return Profile(
        {
            tensor.name: (shape(tensor, 0), shape(tensor, 1), shape(tensor, 2))
            for tensor in inputs
            if any(isinstance(size, str) for size in tensor.shape)
        }
    )


def _fits(profile: Profile, shapes: Mapping[str, Shape]) -> bool:
    return all(
        len(shapes[name]) == len(least)
        and all(low <= size <= high for low, size, high in zip(least, shapes[name], most, strict=True))
        for name, (least, _, most) in profile.shapes.items()
    )


def _volume(profile: Profile) -> int:
    return sum(math.prod(most) for _, _, most in profile.shapes.values())


def _misfit(profiles: Sequence[Profile], shapes: Mapping[str, Shape], stage: str | None) -> str:
    where = f"{stage}: " if stage else ""
    for name in profiles[0].shapes:
        least, most = _extent([profile.shapes[name] for profile in profiles])
        found = shapes[name]
        if len(found) != len(least):
            return f"{where}{name} has {len(found)} axes, expected {len(least)}, as the manifest says"
        for axis, (low, size, high) in enumerate(zip(least, found, most, strict=True)):
            if size < low or (size > high and low == high):
                wanted = f"{low} to {high}" if low < high else f"{low}"
                return f"{where}axis {axis} of {name} is {size}, expected {wanted}, as the manifest says"
            if size > high:
                return (
                    f"{where}axis {axis} of {name} is {size}, the engines take at most {high}; "
                    f"{_advice(name, size)}"
                )
    return f"{where}no profile takes {dict(shapes)}; build the engines again with `sed-trt build BUNDLE`"


def _extent(shapes: Sequence[tuple[Shape, Shape, Shape]]) -> tuple[Shape, Shape]:
    """The least and largest size of each axis over several profiles."""
    least = tuple(min(sizes) for sizes in zip(*(least for least, _, _ in shapes), strict=True))
    most = tuple(max(sizes) for sizes in zip(*(most for _, _, most in shapes), strict=True))
    return least, most


def _advice(name: str, size: int) -> str:
    if name in _PARTS:
        return "give it in smaller parts"
    flag = {"image": "--max-side", "pixels": "--max-batch"}.get(name, "--max-categories")
    return f"build them again with `sed-trt build BUNDLE {flag} {size}`"
