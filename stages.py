"""The stages of the deployed network: inputs, outputs, dynamic axes and precision of each.

This table is the one place that says so. Export, bundle checks, profiles, precisions, the runtime's order of
stages, the benchmarks and the table in the README are derived from it. It needs no other module.
"""

from collections.abc import Container, Mapping
from dataclasses import dataclass
from enum import Enum

# Rows of a vote table: at how many pixels a category ranks first, second, ... eighth.
VOTE_RANKS = 8


class Counts(Enum):
    """What a dynamic axis counts; engines have one limit and one range of sizes for each."""

    SENTENCES = "sentences"
    IMAGES = "images"
    CATEGORIES = "categories"
    SIDE = "height or width of an image in pixels"
    ROWS = "output rows"
    COLUMNS = "output columns"
    TILE_ROWS = "output rows of a tile"
    TILE_COLUMNS = "output columns of a tile"


# The dynamic axes by the name that they have in the graphs. Kn is the number of categories kept at rejection
# point n - 1, padding included.
AXES: Mapping[str, Counts] = {
    "N": Counts.SENTENCES,
    "B": Counts.IMAGES,
    "T": Counts.CATEGORIES,
    "K1": Counts.CATEGORIES,
    "K2": Counts.CATEGORIES,
    "K3": Counts.CATEGORIES,
    "H": Counts.SIDE,
    "W": Counts.SIDE,
    "R": Counts.ROWS,
    "Q": Counts.COLUMNS,
    "RT": Counts.TILE_ROWS,
    "QT": Counts.TILE_COLUMNS,
}

# The fixed sizes by the symbol that stands for them in the shapes below.
SIZES: Mapping[str, str] = {
    "L": "tokens of a sentence",
    "C": "width of the CLIP embedding",
    "P": "prompt templates",
    "81C": "C for each of the 9x9 taps of the scout",
    "27C": "C for each of the taps that correct the scout along one border",
    "9C": "C for each of the taps that correct it at one corner",
    "S": "side of the network's input in pixels",
    "h": "side of the cost map, S / 32",
    "2h": "twice that",
    "4h": "four times that",
    "8h": "eight times that",
    "G1": "channels of the image guidance of decoder stage 1",
    "G2": "of decoder stage 2",
    "G3": "of decoder stage 3",
    "D1": "channels of the features that decoder stage 1 gives",
    "D2": "of decoder stage 2",
    "E1": "channels of the cost guidance that decoder stage 1 gives",
    "E2": "of decoder stage 2",
}

# The dtype of tensors that follow the precision of the bundle: float32, float16 or bfloat16.
COMPUTE = "compute"


class Reader(Enum):
    """Who reads an output, which decides where a backend leaves it."""

    # Comes to the host as a numpy array.
    HOST = "host"
    # May stay where the backend computes.
    STAGE = "stage"
    # People and tests that compare stages; a backend with a device leaves it out.
    DEBUG = "debug"


@dataclass(frozen=True)
class TensorDefinition:
    """One input or output of a stage.

    Attributes:
        name: in the graph; an input takes the tensor of this name that the host or an earlier stage gives.
        dtype: numpy's name, or `COMPUTE`.
        shape: sizes, names of `AXES` where they are dynamic and of `SIZES` where the network fixes them.
        reader: who reads it, if it is an output.
    """

    name: str
    dtype: str
    shape: tuple[int | str, ...]
    reader: Reader = Reader.STAGE

    @property
    def dynamic_axes(self) -> dict[int, str]:
        """Position to name of the dynamic axes."""
        return {axis: size for axis, size in enumerate(self.shape) if isinstance(size, str) and size in AXES}


@dataclass(frozen=True)
class StageDefinition:
    """One stage.

    Attributes:
        name: of the stage; its graph is `<name>.onnx`.
        input_summary: its inputs in a few words, for the documentation.
        output_summary: its outputs likewise.
        inputs: in the order of the graph.
        outputs: likewise.
        narrow_axis: the dynamic axis that most of its work is proportional to and that gets several narrow
            optimization profiles; None where one profile does.
        fp32_reason: why it is FP32 in every bundle, inputs and outputs included; None where it is lowered.
        half_weights: whether most of its weights are half in a half-precision bundle.
        int8_reason: why it is lowered in an 8-bit bundle; None where it is not.
        free_shapes: whether its shapes follow the image's size or the vocabulary's, so that a kernel
            compiled for one shape would rarely be used again.
        votes: the output that a rejection policy reads; None at the others.
        kept: the input that takes the indices which the policy kept before this stage; None at the others.
        gathers_for: the decoder stage whose categories it gathers; None at the others.
        device_only: whether only backends with a device run it; on a CPU numpy does what it does.
    """

    name: str
    input_summary: str
    output_summary: str
    inputs: tuple[TensorDefinition, ...]
    outputs: tuple[TensorDefinition, ...]
    narrow_axis: str | None = None
    fp32_reason: str | None = None
    half_weights: bool = True
    int8_reason: str | None = None
    free_shapes: bool = False
    votes: str | None = None
    kept: str | None = None
    gathers_for: str | None = None
    device_only: bool = False


_EMBED = TensorDefinition("embed", COMPUTE, (1, "C", "h", "h"))
_TEXT = TensorDefinition("text", "float32", ("T", "P", "C"))
_SIDES = ("h", "2h", "4h", "8h")


def _features(number: int) -> tuple[TensorDefinition, TensorDefinition]:
    """Features and cost guidance that decoder stage `number` gives."""
    side = _SIDES[number]
    return (
        TensorDefinition(f"x{number}", COMPUTE, (f"K{number}", f"D{number}", side, side)),
        TensorDefinition(f"cost{number}", COMPUTE, (f"K{number}", f"E{number}", side, side)),
    )


def _gathered(tensor: TensorDefinition, number: int) -> TensorDefinition:
    """A tensor of all categories, for those kept at rejection point `number`."""
    return TensorDefinition(f"kept_{tensor.name}", tensor.dtype, (f"K{number + 1}", *tensor.shape[1:]))


def _guidance(number: int, images: int | str = 1) -> TensorDefinition:
    """Image guidance of decoder stage `number`."""
    side = _SIDES[number]
    return TensorDefinition(f"guidance{number}", COMPUTE, (images, f"G{number}", side, side))


def _kept(number: int) -> TensorDefinition:
    """Indices, into the categories before, of those kept at rejection point `number`; -1 is padding."""
    return TensorDefinition(f"kept{number}", "int64", (f"K{number + 1}",))


def _head_outputs(number: int, axis: str) -> tuple[TensorDefinition, TensorDefinition]:
    """Logits and votes of rejection point `number`; `axis` counts the categories."""
    side = _SIDES[number]
    return (
        TensorDefinition(f"logits{number}", "float32", (axis, side, side), Reader.DEBUG),
        TensorDefinition(f"votes{number}", "int32", (VOTE_RANKS, axis), Reader.HOST),
    )


def _gather(
    number: int, *sources: TensorDefinition, what: str, fp32_reason: str | None = None
) -> StageDefinition:
    """The stage that takes the kept categories from the `sources` of decoder stage `number`.

    It is one of its own so that the decoder stage meets one number of categories at a time, which is one of
    a few, and not also the number before the rejection.
    """
    return StageDefinition(
        f"gather{number}",
        f"{what}, which of the categories to keep",
        f"{what} of the kept categories",
        (*sources, _kept(number - 1)),
        tuple(_gathered(source, number - 1) for source in sources),
        fp32_reason=fp32_reason,
        half_weights=False,
        free_shapes=True,
        gathers_for=f"decode{number}",
        device_only=True,
    )


# A rejection policy on the device. Its votes are those of any rejection point, with T categories before it
# and K1 after it, padding included.
SELECT = StageDefinition(
    "select",
    "votes, a rejection policy in numbers",
    "indices of the categories to keep, and how many they are",
    (
        TensorDefinition("votes", "int32", (VOTE_RANKS, "T")),
        TensorDefinition("ids", "int64", ("T",)),
        TensorDefinition("rule", "int32", (VOTE_RANKS + 2,)),
        TensorDefinition("slots", "int64", ("K1",)),
    ),
    (
        TensorDefinition("selected", "int64", ("K1",)),
        TensorDefinition("selected_ids", "int64", ("K1",)),
        TensorDefinition("count", "int64", (1,)),
    ),
    fp32_reason="counts and compares whole numbers",
    half_weights=False,
    free_shapes=True,
    device_only=True,
)

STAGES: tuple[StageDefinition, ...] = (
    StageDefinition(
        "text",
        "tokens",
        "sentence embeddings, once per vocabulary",
        (TensorDefinition("tokens", "int64", ("N", "L")),),
        (TensorDefinition("embedding", "float32", ("N", "C"), Reader.HOST),),
        fp32_reason="runs once per vocabulary, so half would save nothing that anyone waits for",
        half_weights=False,
        free_shapes=True,
    ),
    StageDefinition(
        "pixels",
        "a uint8 image of any size",
        "the normalised square input",
        (TensorDefinition("image", "uint8", (1, "H", "W", 3)),),
        (TensorDefinition("pixels", "float32", (1, 3, "S", "S")),),
        fp32_reason="resizes 8-bit values and has no weights; `image` rounds its output",
        half_weights=False,
        free_shapes=True,
    ),
    StageDefinition(
        "image",
        "a batch of inputs",
        "embedding and image guidance",
        (TensorDefinition("pixels", "float32", ("B", 3, "S", "S")),),
        (
            TensorDefinition("embed", COMPUTE, ("B", "C", "h", "h")),
            _guidance(1, "B"),
            _guidance(2, "B"),
            _guidance(3, "B"),
        ),
        narrow_axis="B",
        int8_reason="most of its time is in products with weights; of the decoder's time little is",
    ),
    StageDefinition(
        "scout",
        "embedding, vocabulary",
        "a score for every category at every position, and votes",
        (_EMBED, _TEXT),
        _head_outputs(0, "T"),
        narrow_axis="T",
        # Its inputs are half, but all that it computes is inside FP32 islands.
        half_weights=False,
        votes="votes0",
    ),
    SELECT,
    _gather(1, _TEXT, what="vocabulary", fp32_reason="moves the vocabulary, which is FP32, as it is"),
    StageDefinition(
        "decode1",
        "embedding, guidance, vocabulary and indices of the kept categories",
        "their features, and votes",
        (_EMBED, _gathered(_TEXT, 0), _kept(0), _guidance(1)),
        (*_features(1), *_head_outputs(1, "K1")),
        narrow_axis="K1",
        votes="votes1",
        kept="kept0",
    ),
    _gather(2, *_features(1), what="features"),
    StageDefinition(
        "decode2",
        "guidance, features and indices of the kept categories",
        "refined features of twice the resolution, and votes",
        (*(_gathered(each, 1) for each in _features(1)), _kept(1), _guidance(2)),
        (*_features(2), *_head_outputs(2, "K2")),
        narrow_axis="K2",
        votes="votes2",
        kept="kept1",
    ),
    _gather(3, *_features(2), what="features"),
    StageDefinition(
        "decode3",
        "guidance, features and indices of the kept categories",
        "their logits",
        (*(_gathered(each, 2) for each in _features(2)), _kept(2), _guidance(3)),
        (TensorDefinition("logits", "float32", ("K3", "8h", "8h")),),
        narrow_axis="K3",
        kept="kept2",
    ),
    StageDefinition(
        "label",
        "logits, output rows and columns",
        "labels and scores",
        (
            TensorDefinition("logits", "float32", ("K3", "8h", "8h")),
            TensorDefinition("kept", "int64", ("K3",)),
            TensorDefinition("rows", "float32", ("R",)),
            TensorDefinition("columns", "float32", ("Q",)),
        ),
        (
            TensorDefinition("labels", "int32", ("R", "Q"), Reader.HOST),
            TensorDefinition("scores", "float32", ("R", "Q"), Reader.HOST),
        ),
        narrow_axis="K3",
        fp32_reason="compares probabilities, which in half are often equal",
        half_weights=False,
        free_shapes=True,
    ),
)

STAGE_NAMES: tuple[str, ...] = tuple(stage.name for stage in STAGES)

_FOLDED = (
    TensorDefinition("inside", COMPUTE, ("T", "81C")),
    TensorDefinition("borders", COMPUTE, (4, "T", "27C")),
    TensorDefinition("corners", COMPUTE, (4, "T", "9C")),
)
# The scout in two stages, which only CPU backends run: what it costs on a GPU has not been measured. A bundle
# may lack them.
FOLD = StageDefinition(
    "fold",
    "vocabulary",
    "the vocabulary folded with the scout's convolutions, once per vocabulary",
    (_TEXT,),
    _FOLDED,
    # Its sums are inside an FP32 island; only what it gives is half.
    half_weights=False,
    free_shapes=True,
)
FOLDED_SCOUT = StageDefinition(
    "scout_folded",
    "embedding, folded vocabulary",
    "what `scout` gives, in one matrix product",
    (_EMBED, *_FOLDED),
    _head_outputs(0, "T"),
    half_weights=False,
    votes="votes0",
)
CPU_STAGES: tuple[StageDefinition, ...] = (FOLD, FOLDED_SCOUT)
# `label` for GPUs. Its labels stay on the device until those of all tiles come to the host at once.
LABEL_GPU = StageDefinition(
    "label_gpu",
    "logits, output rows and columns",
    "labels in two bytes, and scores",
    (
        TensorDefinition("logits", "float32", ("K3", "8h", "8h")),
        TensorDefinition("kept", "int64", ("K3",)),
        TensorDefinition("rows", "float32", ("RT",)),
        TensorDefinition("columns", "float32", ("QT",)),
    ),
    (
        # TensorRT has no type of 16 bits for integers: the low byte of each label, then its high byte.
        TensorDefinition("label_bytes", "uint8", ("RT", "QT", 2)),
        TensorDefinition("label_scores", "float32", ("RT", "QT")),
    ),
    narrow_axis="K3",
    fp32_reason="as `label`",
    half_weights=False,
    free_shapes=True,
    device_only=True,
)
GPU_STAGES: tuple[StageDefinition, ...] = (LABEL_GPU,)
ALL_STAGES: tuple[StageDefinition, ...] = (*STAGES, *CPU_STAGES, *GPU_STAGES)
BY_NAME: Mapping[str, StageDefinition] = {stage.name: stage for stage in ALL_STAGES}

# The stages that run once per image and vocabulary, in order: the scout and the decoder.
DECODER: tuple[StageDefinition, ...] = tuple(stage for stage in STAGES if stage.votes or stage.kept)
# The stage that runs before each decoder stage of this name, on what the policy kept.
GATHERS: Mapping[str, StageDefinition] = {stage.gathers_for: stage for stage in STAGES if stage.gathers_for}
# The rejection points: after each of these stages a policy chooses the categories that stay alive.
REJECTION_POINTS: tuple[StageDefinition, ...] = tuple(stage for stage in STAGES if stage.votes)

_OUTPUTS = [output for stage in STAGES for output in stage.outputs]
# Outputs that come as numpy arrays from every backend. The others may stay on the backend's device.
HOST_OUTPUTS: frozenset[str] = frozenset(each.name for each in _OUTPUTS if each.reader is Reader.HOST)
# Outputs that only people and tests read. A backend with a device leaves them out.
DEBUG_OUTPUTS: frozenset[str] = frozenset(each.name for each in _OUTPUTS if each.reader is Reader.DEBUG)


def gpu_stages(stages: Container[str]) -> tuple[str, ...]:
    """Names of the stages that a GPU runs of a bundle that has `stages`, in the order of `STAGES`.

    `label_gpu` takes the place of `label`, except in bundles of earlier versions, which lack it.
    """
    return tuple(gpu_label_stage(stages) if name == "label" else name for name in STAGE_NAMES)


def gpu_label_stage(stages: Container[str]) -> str:
    """Name of the stage that labels on a GPU, of a bundle that has `stages`."""
    return LABEL_GPU.name if LABEL_GPU.name in stages else "label"
