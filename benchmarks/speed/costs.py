"""Arithmetic and memory traffic of every stage in closed form, from the preset and the numbers of categories.

A list of layers gives both: FLOPs, which the tests compare with PyTorch's FlopCounterMode on the networks
themselves, and weights, which count as traffic and which no counter knows. FLOPs are those of convolutions
and matrix products, two for each multiplication with its addition. Norms, activations and biases are left
out.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from ...model.decoder import HEADS
from ...model.presets import Preset
from ...model.text import templates_of

# The published network, and our stages.
Design = Literal["published", "staged"]
DESIGNS: tuple[Design, ...] = ("published", "staged")

# Blocks in the four stages of the image tower.
DEPTHS = {"sed-b": (3, 3, 27, 3), "sed-l": (3, 3, 27, 3), "sed-tiny": (2, 2, 4, 2)}
# Of CLIP's head where it is an MLP rather than one linear layer.
HEAD_WIDTHS = {"sed-l": 1536}


@dataclass(frozen=True)
class Layer:
    """A convolution or matrix product at every position of a map.

    Attributes:
        inputs: channels that each output channel sums over.
        outputs: channels.
        taps: of the kernel; a transposed convolution has those of one input position.
        side: of the map it is applied at, in positions; of a transposed convolution the smaller one.
        weighted: whether it has weights; products of two maps have none.
        other: the map's second side where it is not square.
    """

    inputs: int
    outputs: int
    taps: int
    side: int
    weighted: bool = True
    other: int | None = None

    @property
    def flops(self) -> int:
        """For one image or category."""
        return 2 * self.inputs * self.outputs * self.taps * self.side * (self.other or self.side)

    @property
    def weights(self) -> int:
        """How many values."""
        return self.inputs * self.outputs * self.taps if self.weighted else 0


@dataclass(frozen=True)
class StageCost:
    """What a stage costs for one image.

    Attributes:
        stage: its name.
        flops: see the module.
        minimum: values that go to or from memory in any implementation: inputs, outputs and weights once.
        fused: the same with one kernel for each block, and one more for each sum over a whole map or over all
            categories, for which everything after it waits; features go to memory between kernels.
    """

    stage: str
    flops: int
    minimum: int
    fused: int


def stage_costs(
    preset: Preset, categories: int, kept: Sequence[int], design: Design = "staged"
) -> list[StageCost]:
    """The costs of all stages but `text`, `pixels` and `label`, in order.

    Args:
        preset: sizes of the network.
        categories: T.
        kept: categories alive after each of the three rejection points.
        design: of the decoder.
    """
    costs = [image_cost(preset), scout_cost(preset, categories, design)]
    if design == "published":
        costs.append(guidance_cost(preset, categories))
    return costs + [decode_cost(preset, index, count, design) for index, count in enumerate(kept)]


def image_cost(preset: Preset) -> StageCost:
    """The image tower, CLIP's head at every position, and the image guidance."""
    widths, size, grid = preset.trunk_widths, preset.image_size, preset.grid
    layers, kernels, before = [], 0, 3
    for index, (width, depth) in enumerate(zip(widths, DEPTHS[preset.name], strict=True)):
        side = size // (4 << index)
        layers.append(Layer(before, width, 16 if index == 0 else 4, side))
        layers += depth * _block(width, 49, side)
        # Each block and the convolution before them read and write a map.
        kernels += 2 * (depth + 1) * width * side**2
        before = width
    hidden = HEAD_WIDTHS.get(preset.name)
    steps = (before, preset.embed_dim) if hidden is None else (before, hidden, preset.embed_dim)
    layers += [Layer(first, second, 1, grid) for first, second in itertools.pairwise(steps)]
    guides = zip((widths[2], widths[1], widths[0]), preset.guidance_widths, (2, 4, 8), strict=True)
    layers += [Layer(width, guide, 9, up * grid) for width, guide, up in guides]
    outputs = preset.embed_dim * grid**2 + sum(_guide(preset, index) for index in range(3))
    minimum = 3 * size**2 + outputs + _weights(layers)
    return StageCost("image", _flops(layers), minimum, minimum + kernels)


def scout_cost(preset: Preset, categories: int, design: Design) -> StageCost:
    """The cost map and the logits of the first head, of all categories."""
    prompts, width, grid = len(templates_of(preset)), preset.decoder_widths[0], preset.grid
    each = [_cost_map(preset)]
    outputs = 0
    if design == "published":
        each += [Layer(prompts, width, 49, grid), Layer(width, 1, 9, grid)]
        outputs = (prompts + width) * grid**2
    else:
        # The whole map, then the corrections of its four edges and corners.
        each += [Layer(prompts, 1, 81, grid)]
        each += 4 * [Layer(prompts, 1, 63, grid, other=3)] + 4 * [Layer(prompts, 1, 49, 3)]
    minimum = _image_and_text(preset, categories) + categories * outputs + _weights(each)
    return StageCost("scout", categories * _flops(each), minimum, minimum)


def guidance_cost(preset: Preset, categories: int) -> StageCost:
    """The published cost guidance of all stages, of all categories."""
    each = [_project(preset, index) for index in range(3)]
    values = len(templates_of(preset)) * preset.grid**2 + sum(_guide(preset, index) for index in range(3))
    # Each step reads what the one before it wrote.
    again = sum(_guide(preset, index) for index in range(2))
    minimum = categories * values + _weights(each)
    return StageCost("guidance", categories * _flops(each), minimum, minimum + categories * again)


def decode_cost(preset: Preset, index: int, kept: int, design: Design) -> StageCost:
    """A decoder stage, 0 to 2, with the layers that lead to it and its head."""
    width, out, guide = (
        preset.decoder_widths[index],
        preset.decoder_widths[index + 1],
        preset.guidance_widths[index],
    )
    side = preset.grid << index
    each = [*_block(width, 81, side), *_attention(width, side, design), *_mlp(width, side)]
    shared: list[Layer] = []
    if design == "published":
        each += [Layer(width, width - guide, 4, side), Layer(width + guide, out, 9, 2 * side)]
    else:
        each.append(_project(preset, index))
        shared.append(Layer(guide, out, 9, 2 * side))
        if index == 0:
            each += [_cost_map(preset), Layer(len(templates_of(preset)), width, 49, side)]
        each += [Layer(width, out, 16, side), Layer(guide, out, 9, 2 * side)]
    each += [Layer(out, out, 9, 2 * side), Layer(out, 1, 9, 2 * side)]
    features, result = width * side**2, out * (2 * side) ** 2
    minimum = _guide(preset, index) + _weights(each + shared)
    if design == "published":
        minimum += kept * (features + _guide(preset, index))
    elif index == 0:
        minimum += _image_and_text(preset, kept)
    else:
        minimum += kept * (features + _guide(preset, index - 1))
    last = index == 2
    minimum += kept * ((2 * side) ** 2 if last else result)
    if design != "published" and not last:
        minimum += kept * _guide(preset, index)
    # Features before attention are written, read for the sums over categories, and read again; the result of
    # each of the two group norms is written and read.
    fused = minimum + kept * (3 * features + 4 * result)
    return StageCost(f"decode{index + 1}", kept * _flops(each) + _flops(shared), minimum, fused)


def _flops(layers: Sequence[Layer]) -> int:
    return sum(layer.flops for layer in layers)


def _weights(layers: Sequence[Layer]) -> int:
    return sum(layer.weights for layer in layers)


def _block(width: int, taps: int, side: int) -> list[Layer]:
    """A ConvNeXt block."""
    return [Layer(1, width, taps, side), *_mlp(width, side)]


def _mlp(width: int, side: int) -> list[Layer]:
    return [Layer(width, 4 * width, 1, side), Layer(4 * width, width, 1, side)]


def _attention(width: int, side: int, design: Design) -> list[Layer]:
    """Queries, keys and values; the sums over categories and their products with the queries; the norm."""
    if design == "published":
        products = [Layer(width // HEADS, width, 1, side, weighted=False)] * 2
        products.append(Layer(1, width, 1, side, weighted=False))
    else:
        # All heads in one product, whose other blocks are masked.
        products = [Layer(width, width, 1, side, weighted=False)] * 3
    return [Layer(width, 3 * width, 1, side), *products]


def _cost_map(preset: Preset) -> Layer:
    return Layer(preset.embed_dim, len(templates_of(preset)), 1, preset.grid, weighted=False)


def _project(preset: Preset, index: int) -> Layer:
    before = (len(templates_of(preset)), *preset.guidance_widths)[index]
    return Layer(before, preset.guidance_widths[index], 4, preset.grid << index)


def _guide(preset: Preset, index: int) -> int:
    """Number of values of a stage's guidance, of the image or of one category."""
    return preset.guidance_widths[index] * (preset.grid << (index + 1)) ** 2


def _image_and_text(preset: Preset, categories: int) -> int:
    return preset.embed_dim * (preset.grid**2 + categories * len(templates_of(preset)))
