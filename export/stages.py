"""One module per stage of the deployed network, and the example inputs that each is traced with."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from ..model import SED
from ..model.clip import dense_features
from ..model.labels import LOWEST, label_band, label_tile, to_pixels, vote_table
from ..model.scout import Fold, FoldedScout, Scout, UnitLength
from ..stages import ALL_STAGES, VOTE_RANKS, StageDefinition, TensorDefinition
from .convnext import pointwise_tower
from .fusions import FusedUp, StageBlock


class TextStage(nn.Module):
    """Tokens to sentence embeddings."""

    def __init__(self, model: SED) -> None:
        super().__init__()
        self.clip = model.clip

    def forward(self, tokens: Tensor) -> Tensor:
        """Unit vectors, (N, C), from tokens, int64 (N, L)."""
        embedding: Tensor = self.clip.encode_text(tokens, normalize=True)
        return embedding


class PixelsStage(nn.Module):
    """An image of any size to the network's square input."""

    def __init__(self, model: SED) -> None:
        super().__init__()
        self.size = model.preset.image_size

    def forward(self, image: Tensor) -> Tensor:
        """Normalised pixels, float32 (1, 3, S, S), from an image, uint8 (1, H, W, 3)."""
        return to_pixels(image, self.size)


class ImageStage(nn.Module):
    """The image tower and the image guidance of the three decoder stages."""

    def __init__(self, model: SED) -> None:
        super().__init__()
        self.visual = pointwise_tower(model.clip.visual)
        self.decoder = model.decoder

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Embed a batch.

        Args:
            pixels: float32 (B, 3, S, S).

        Returns:
            The embedding (B, C, h, h) and the guidance (B, _, 2h, 2h), (B, _, 4h, 4h), (B, _, 8h, 8h).
        """
        embed, maps = dense_features(self.visual, pixels.to(self.decoder.conv1.weight.dtype))
        first, second, third = self.decoder.image_guidance(maps)
        return embed, first, second, third


class ScoutStage(nn.Module):
    """head0 of every category, without the features that the published network computes for it."""

    def __init__(self, model: SED) -> None:
        super().__init__()
        self.cost_map = model.decoder.cost_map
        self.scout = Scout(model.decoder.conv1, model.decoder.head0, model.preset.grid)

    def forward(self, embed: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
        """Logits0 (T, h, h) and votes0 (ranks, T) from the embedding (1, C, h, h) and text (T, P, C)."""
        logits = self.scout(self.cost_map(embed, text))
        return logits, vote_table(logits)


class FoldStage(nn.Module):
    """A vocabulary to the taps of the folded scout."""

    def __init__(self, model: SED) -> None:
        super().__init__()
        self.fold = Fold(model.decoder.conv1, model.decoder.head0)

    def forward(self, text: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(T, 81 C), (4, T, 27 C) and (4, T, 9 C) from unit vectors (T, P, C)."""
        inside, borders, corners = self.fold(text)
        return inside, borders, corners


class FoldedScoutStage(nn.Module):
    """What `ScoutStage` gives, from a folded vocabulary."""

    def __init__(self, model: SED) -> None:
        super().__init__()
        self.unit = UnitLength()
        self.scout = FoldedScout(model.decoder.conv1, model.decoder.head0, model.preset.grid)

    def forward(
        self, embed: Tensor, inside: Tensor, borders: Tensor, corners: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Logits0 (T, h, h) and votes0 (ranks, T).

        Args:
            embed: (1, C, h, h).
            inside: taps, (T, 81 C).
            borders: (4, T, 27 C).
            corners: (4, T, 9 C).
        """
        logits = self.scout(self.unit(embed), inside, borders, corners)
        return logits, vote_table(logits)


class SelectStage(nn.Module):
    """The rejection policies of the runtime, by their numbers.

    Sums over comparisons of all pairs of categories take the place of sorting, prefix sums and scattering,
    which TensorRT has with limits or not at all.
    """

    weights: Tensor

    def __init__(self) -> None:
        super().__init__()
        # A vote at rank r of R weighs R - r.
        self.register_buffer("weights", torch.arange(VOTE_RANKS, 0, -1, dtype=torch.int32).unsqueeze(1))

    def forward(
        self, votes: Tensor, ids: Tensor, rule: Tensor, slots: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Choose the categories to keep.

        Args:
            votes: int32 (VOTE_RANKS, T).
            ids: int64 (T,), indices in the vocabulary; -1 for padding, which is not kept.
            rule: int32 (VOTE_RANKS + 2,): 1 for each rank whose votes count and 0 for the others; the fewest
                votes that keep a category; the largest number of categories, those with the best scores.
            slots: int64 (K,), 0 to K - 1.

        Returns:
            The first K of the kept categories, int64 (K,), rising, followed by -1; their `ids`, likewise; how
            many categories are kept, int64 (1,), which may be more than K.
        """
        ranks, least, largest = rule[:VOTE_RANKS], rule[VOTE_RANKS], rule[VOTE_RANKS + 1]
        alive = ids >= 0
        order = torch.arange(ids.shape[0], device=ids.device)
        # Row i, column j: whether category j comes before i, and whether it has the better place.
        before = order.unsqueeze(0) < order.unsqueeze(1)
        scores = torch.where(alive, (votes * self.weights).sum(0, dtype=torch.int32), -1)
        better = scores.unsqueeze(0) > scores.unsqueeze(1)
        better = better | ((scores.unsqueeze(0) == scores.unsqueeze(1)) & before)
        place = better.sum(1, dtype=torch.int32)
        counted = (votes * ranks.unsqueeze(1)).sum(0, dtype=torch.int32)
        chosen = alive & (counted >= least) & (place < largest)
        # One is kept in any case.
        chosen = chosen | ((place == 0) & (chosen.sum(dtype=torch.int32) == 0))
        count = chosen.sum(dtype=torch.int64).reshape(1)
        slot = (before & chosen).sum(1, dtype=torch.int64)
        taken = (chosen & (slot == slots.unsqueeze(1))).to(torch.int64)
        filled = slots < count
        selected = torch.where(filled, (taken * order).sum(1), -1)
        selected_ids = torch.where(filled, (taken * ids).sum(1), -1)
        return selected, selected_ids, count


class GatherTextStage(nn.Module):
    """The kept categories of a vocabulary."""

    def forward(self, text: Tensor, kept: Tensor) -> Tensor:
        """(K, P, C) from text (T, P, C) and int64 (K,), where -1 stands for any category."""
        return text.index_select(0, kept.clamp(min=0))


class GatherStage(nn.Module):
    """The features and cost guidance of the kept categories."""

    def forward(self, x: Tensor, cost: Tensor, kept: Tensor) -> tuple[Tensor, Tensor]:
        """Both (K, _, h, h) from those of T categories and int64 (K,), where -1 stands for any category."""
        rows = kept.clamp(min=0)
        return x.index_select(0, rows), cost.index_select(0, rows)


class DecodeStage(nn.Module):
    """A decoder stage with its cost guidance and head, for the categories kept by the rejection before it.

    The kept indices may end in entries of -1, which pad the category axis to a size that an engine has run
    before: no other category's result depends on them, and their logits are `LOWEST`.
    """

    def __init__(self, model: SED, index: int) -> None:
        """`index` is 0, 1 or 2 for decode1, decode2 or decode3."""
        super().__init__()
        decoder = model.decoder
        stage = decoder.stages[index]
        self.project = decoder.decoder_corr_guidance_projection[index]
        self.block = StageBlock(stage)
        self.up = FusedUp(stage, model.preset.grid * 2**index)
        self.head = decoder.stage_heads[index]
        self.is_last = self.head is decoder.head

    def forward(self, x: Tensor, cost: Tensor, kept: Tensor, guidance: Tensor) -> tuple[Tensor, ...]:
        """Decode the kept categories.

        Args:
            x: their features, (K, width, h, h).
            cost: their cost map or cost guidance, (K, _, h, h).
            kept: int64 (K,), the indices that they were gathered with; negative for padding.
            guidance: image guidance, (1, _, 2h, 2h).

        Returns:
            The next features and cost guidance, (K, _, 2h, 2h), the head's logits, (K, 2h, 2h), and their
            votes, (ranks, K); the last stage gives logits alone.
        """
        alive = kept >= 0
        cost = self.project(cost)
        x = self.up(self.block(x, alive), guidance, cost)
        logits = self.head(x).squeeze(1)
        logits = torch.where(alive.view(-1, 1, 1), logits, LOWEST)
        return (logits,) if self.is_last else (x, cost, logits, vote_table(logits, alive))


class Decode1Stage(DecodeStage):
    """Decoder stage 1, which computes the features and the cost map of the kept categories itself."""

    def __init__(self, model: SED) -> None:
        super().__init__(model, index=0)
        self.cost_map = model.decoder.cost_map
        self.conv1 = model.decoder.conv1

    def forward(self, embed: Tensor, text: Tensor, kept: Tensor, guidance: Tensor) -> tuple[Tensor, ...]:
        """As `DecodeStage.forward`, from the embedding (1, C, h, h) and kept rows of text, (K, P, C)."""
        cost = self.cost_map(embed, text)
        return super().forward(self.conv1(cost), cost, kept, guidance)


class LabelStage(nn.Module):
    """Logits to labels and scores of a band of output rows and columns."""

    def forward(self, logits: Tensor, kept: Tensor, rows: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
        """Labels int32 (R, Q) and scores (R, Q) from (K3, 8h, 8h), int64 (K3,), (R,), (Q,)."""
        labels, scores = label_band(logits, kept, rows, columns)
        # TensorRT has no 16-bit unsigned type; the host narrows the result.
        return labels.to(torch.int32), scores


class LabelGpuStage(nn.Module):
    """What `LabelStage` gives, in two bytes a label, of a tile of output rows and columns."""

    def forward(self, logits: Tensor, kept: Tensor, rows: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
        """Labels uint8 (R, Q, 2) and scores (R, Q) from (K3, 8h, 8h), int64 (K3,), (R,), (Q,)."""
        return label_tile(logits, kept, rows, columns)


MODULES: Mapping[str, Callable[[SED], nn.Module]] = {
    "text": TextStage,
    "pixels": PixelsStage,
    "image": ImageStage,
    "scout": ScoutStage,
    "fold": FoldStage,
    "scout_folded": FoldedScoutStage,
    "select": lambda _model: SelectStage(),
    "gather1": lambda _model: GatherTextStage(),
    "decode1": Decode1Stage,
    "gather2": lambda _model: GatherStage(),
    "decode2": partial(DecodeStage, index=1),
    "gather3": lambda _model: GatherStage(),
    "decode3": partial(DecodeStage, index=2),
    "label": lambda _model: LabelStage(),
    "label_gpu": lambda _model: LabelGpuStage(),
}

# Sizes of the dynamic axes of the example inputs. Tracing takes a size of 1 as fixed, and axes of equal size
# as the same, so those of one stage differ.
EXAMPLE_AXES: dict[str, int] = {
    "N": 3, "B": 2, "T": 5, "K1": 4, "K2": 3, "K3": 2, "H": 90, "W": 120, "R": 50, "Q": 60,
    "RT": 40, "QT": 70,
}  # fmt: skip


@dataclass(frozen=True)
class GraphSpec:
    """What one graph is exported from.

    Attributes:
        stage: its names, dtypes and shapes.
        module: the module that is traced.
        inputs: example inputs by name, in order.
    """

    stage: StageDefinition
    module: nn.Module
    inputs: dict[str, Tensor]

    @property
    def name(self) -> str:
        """Name of the stage."""
        return self.stage.name

    def run(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The outputs by name, without gradients, for the inputs among `tensors`."""
        with torch.no_grad():
            outputs = self.module(*(tensors[name] for name in self.inputs))
        values = outputs if isinstance(outputs, tuple) else (outputs,)
        return {output.name: value for output, value in zip(self.stage.outputs, values, strict=True)}


def graph_specs(model: SED) -> list[GraphSpec]:
    """The stages of `model`, in the order that they run."""
    sizes = EXAMPLE_AXES | fixed_sizes(model)
    return [
        GraphSpec(
            stage,
            MODULES[stage.name](model),
            {tensor.name: example_input(tensor, sizes) for tensor in stage.inputs},
        )
        for stage in ALL_STAGES
    ]


def fixed_sizes(model: SED) -> dict[str, int]:
    """The values that `stages.SIZES` have for a model."""
    preset, grid = model.preset, model.preset.grid
    _, after1, after2, _ = preset.decoder_widths
    guidance1, guidance2, guidance3 = preset.guidance_widths
    return {
        "L": model.clip.context_length,
        "C": preset.embed_dim,
        "P": len(model.templates),
        "81C": 81 * preset.embed_dim,
        "27C": 27 * preset.embed_dim,
        "9C": 9 * preset.embed_dim,
        "S": preset.image_size,
        "h": grid,
        "2h": 2 * grid,
        "4h": 4 * grid,
        "8h": 8 * grid,
        "G1": guidance1,
        "G2": guidance2,
        "G3": guidance3,
        "D1": after1,
        "D2": after2,
        "E1": guidance1,
        "E2": guidance2,
    }


def example_input(tensor: TensorDefinition, sizes: Mapping[str, int]) -> Tensor:
    """An input of plausible values, in FP32 where it follows the bundle's precision."""
    shape = [sizes[size] if isinstance(size, str) else size for size in tensor.shape]
    if tensor.dtype == "uint8":
        return torch.randint(0, 256, shape, dtype=torch.uint8)
    if tensor.dtype == "int64":
        # Tokens, or the first categories.
        return torch.arange(math.prod(shape)).reshape(shape)
    if tensor.dtype == "int32":
        # Votes, and the numbers of a policy.
        return torch.randint(0, 9, shape, dtype=torch.int32)
    values = torch.randn(shape)
    return nn.functional.normalize(values, dim=-1) if tensor.name in ("text", "kept_text") else values
