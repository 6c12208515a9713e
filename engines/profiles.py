"""Optimization profiles: the ranges of shapes that an engine is tuned for, and the choice among them.

A wide range makes slow kernels, so the axis that most of a stage's work is proportional to gets several
narrow ones. What each axis counts and which one is narrow stands in the table of stages.
"""

import math
from collections.abc import Mapping, Sequence

import msgspec

from ..bundle import Manifest, Stage
from ..errors import InputError
from ..stages import AXES, BY_NAME, STAGES, Counts, StageDefinition, TensorDefinition, gpu_stages

Shape = tuple[int, ...]
# Smallest size, the size that kernels are tuned for, and largest size of an axis.
Range = tuple[int, int, int]
# Min, opt and max shape, by name, of each input of a stage that has a dynamic axis.
Profile = Mapping[str, tuple[Shape, Shape, Shape]]

# Sentences, and output columns, that a stage takes at once; callers give longer inputs in parts.
SENTENCES = 256
BAND_SIDE = 4096
# Categories times output rows of a band: with `BAND_SIDE` columns its up-sampled logits take 256 MiB.
_BAND_ROWS = 2**14
# Output columns, and categories times output rows, that `label_gpu` takes at once: 512 MiB. A tile is
# narrower than a band, so that images of the usual widths fill the memory that it may take.
TILE_SIDE = 1024
_TILE_ROWS = 2**17
_CATEGORY_RANGES: tuple[Range, ...] = ((1, 16, 32), (33, 64, 128), (129, 256, 1024))
_BUCKETS = (8, 16, 32, 64, 128, 256, 512, 1024)
_OPT_BATCH = 4
_OPT_SIDE = 640

# The flag of `sed-trt build` that raises the limit of an axis. What the others count comes in parts.
_FLAGS = {
    Counts.CATEGORIES: "--max-categories",
    Counts.IMAGES: "--max-batch",
    Counts.SIDE: "--max-side",
}
# What each axis of an input counts, None where it is fixed. Inputs of one name are alike in all stages.
_COUNTS: Mapping[str, tuple[Counts | None, ...]] = {
    tensor.name: tuple(AXES.get(str(size)) for size in tensor.shape)
    for stage in STAGES
    for tensor in stage.inputs
}


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The largest sizes that engines take.

    Attributes:
        max_categories: categories of a vocabulary.
        max_batch: images that the encoder takes at a time.
        max_side: height and width of an image in pixels.

    Raises:
        InputError: one is less than 1.
    """

    max_categories: int = 1024
    max_batch: int = 8
    max_side: int = 4096

    def __post_init__(self) -> None:
        for name, value in msgspec.structs.asdict(self).items():
            if value < 1:
                raise InputError(f"{name.replace('_', ' ')}: {value} is too few, expected at least 1")


def category_buckets(max_categories: int) -> tuple[int, ...]:
    """The counts of categories that shapes are padded to, ascending; the last is `max_categories`."""
    return (*(bucket for bucket in _BUCKETS if bucket < max_categories), max_categories)


def label_rows(categories: int) -> int:
    """Most output rows of a band that the stage `label` takes at once, with logits of so many categories."""
    return _rows_at_once(categories, _BAND_ROWS)


def tile_rows(categories: int) -> int:
    """Most output rows of a tile that `label_gpu` takes at once, with logits of so many categories."""
    return _rows_at_once(categories, _TILE_ROWS)


def stage_profiles(manifest: Manifest, limits: Limits) -> dict[str, tuple[Profile, ...]]:
    """The profiles of every stage that a GPU runs, narrowest first.

    Sizes of fixed axes are those of the manifest; which axes are dynamic is decided by the table of stages,
    whatever the manifest calls them.
    """
    return {
        name: _profiles(BY_NAME[name], manifest.stages[name], limits) for name in gpu_stages(manifest.stages)
    }


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


def _rows_at_once(categories: int, rows: int) -> int:
    """`rows` over the largest category count of the profile that takes `categories`, and at least one."""
    largest = (end for _, _, end in _CATEGORY_RANGES if categories <= end)
    return max(1, rows // next(largest, categories))


def _profiles(definition: StageDefinition, stage: Stage, limits: Limits) -> tuple[Profile, ...]:
    narrow = definition.narrow_axis
    if narrow is None:
        return (_profile(definition, stage, {}, limits),)
    ranges = _batch_ranges(limits) if AXES[narrow] is Counts.IMAGES else _category_ranges(limits)
    return tuple(_profile(definition, stage, {narrow: sizes}, limits) for sizes in ranges)


def _batch_ranges(limits: Limits) -> list[Range]:
    # One image at a time is the usual case, and deserves kernels of its own.
    ranges = [(1, 1, 1)]
    if limits.max_batch > 1:
        ranges.append((2, min(_OPT_BATCH, limits.max_batch), limits.max_batch))
    return ranges


def _category_ranges(limits: Limits) -> list[Range]:
    largest = limits.max_categories
    ranges = [
        (start, min(opt, largest), min(end, largest))
        for start, opt, end in _CATEGORY_RANGES
        if start <= largest
    ]
    start, opt, _ = ranges[-1]
    return [*ranges[:-1], (start, opt, largest)]


def _profile(
    definition: StageDefinition, stage: Stage, narrow: Mapping[str, Range], limits: Limits
) -> Profile:
    """The profile of a stage with one range of its narrow axis; `narrow` is empty if it has none."""
    ranges = {
        axis: narrow.get(axis) or _wide_range(AXES[axis], narrow, limits)
        for tensor in definition.inputs
        for axis in tensor.dynamic_axes.values()
    }

    def shape(tensor: TensorDefinition, sizes: Sequence[int | str], end: int) -> Shape:
        axes = tensor.dynamic_axes
        return tuple(
            ranges[axes[axis]][end] if axis in axes else int(size) for axis, size in enumerate(sizes)
        )

    return {
        tensor.name: (
            shape(tensor, spec.shape, 0),
            shape(tensor, spec.shape, 1),
            shape(tensor, spec.shape, 2),
        )
        for tensor, spec in zip(definition.inputs, stage.inputs, strict=True)
        if tensor.dynamic_axes
    }


def _wide_range(counts: Counts, narrow: Mapping[str, Range], limits: Limits) -> Range:
    """The range of an axis other than the narrow one."""
    start, _, end = next(iter(narrow.values()), _CATEGORY_RANGES[0])
    if counts is Counts.CATEGORIES:
        return 1, min(end, limits.max_categories), limits.max_categories
    if counts is Counts.SENTENCES:
        return 1, SENTENCES, SENTENCES
    largest = {
        Counts.SIDE: limits.max_side,
        Counts.COLUMNS: BAND_SIDE,
        Counts.ROWS: label_rows(start),
        Counts.TILE_COLUMNS: TILE_SIDE,
        Counts.TILE_ROWS: tile_rows(start),
    }[counts]
    return 1, min(_OPT_SIDE, largest), largest


def _fits(profile: Profile, shapes: Mapping[str, Shape]) -> bool:
    return all(
        len(shapes[name]) == len(smallest)
        and all(low <= size <= high for low, size, high in zip(smallest, shapes[name], largest, strict=True))
        for name, (smallest, _, largest) in profile.items()
    )


def _volume(profile: Profile) -> int:
    return sum(math.prod(largest) for _, _, largest in profile.values())


def _misfit(profiles: Sequence[Profile], shapes: Mapping[str, Shape], stage: str | None) -> str:
    where = f"{stage}: " if stage else ""
    for name in profiles[0]:
        smallest, largest = _extent([profile[name] for profile in profiles])
        shape = shapes[name]
        if len(shape) != len(smallest):
            return f"{where}{name} has {len(shape)} axes, expected {len(smallest)}, as the manifest says"
        for axis, (low, size, high) in enumerate(zip(smallest, shape, largest, strict=True)):
            if low <= size <= high:
                continue
            counts = _COUNTS[name][axis]
            if counts is None or size < low:
                expected = f"{low} to {high}" if low < high else f"{low}"
                return f"{where}axis {axis} of {name} is {size}, expected {expected}, as the manifest says"
            if counts in _FLAGS:
                advice = f"build them again with `sed-trt build BUNDLE {_FLAGS[counts]} {size}`"
            else:
                advice = "give it in smaller parts"
            return f"{where}axis {axis} of {name} is {size}, the engines take at most {high}; {advice}"
    return f"{where}no profile takes {dict(shapes)}; build the engines again with `sed-trt build BUNDLE`"


def _extent(shapes: Sequence[tuple[Shape, Shape, Shape]]) -> tuple[Shape, Shape]:
    """The smallest and largest size of each axis over several profiles."""
    smallest = tuple(min(sizes) for sizes in zip(*(low for low, _, _ in shapes), strict=True))
    largest = tuple(max(sizes) for sizes in zip(*(high for _, _, high in shapes), strict=True))
    return smallest, largest
