"""SED: open-vocabulary segmentation with a CLIP cost map, a three-stage decoder and early rejection."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from ..errors import InputError
from .clip import build_clip, dense_features
from .decoder import Decoder
from .labels import VOTE_RANKS, label_map, survivors, to_pixels, vote_table
from .presets import Preset
from .text import encode_vocabulary, templates_of


@dataclass(frozen=True)
class Output:
    """Logits of every category at every head.

    Attributes:
        logits: of the last head, (B, T, 8h, 8w), before the sigmoid.
        aux: of the aux heads head0, head1, head2: (B, T, h, w), (B, T, 2h, 2w), (B, T, 4h, 4w).
    """

    logits: Tensor
    aux: tuple[Tensor, Tensor, Tensor]


@dataclass(frozen=True)
class Rejected:
    """Logits of the categories that early rejection left.

    Attributes:
        logits: of the last head, (K3, 8h, 8w), before the sigmoid.
        kept: int64 (K3,), the category that each of them stands for.
        survivors: at head0, head1 and head2, which of the categories entering that point survived, int64
            (K1,), (K2,), (K3,).
    """

    logits: Tensor
    kept: Tensor
    survivors: tuple[Tensor, Tensor, Tensor]


class SED(nn.Module):
    """The network of a preset, with random weights until some are loaded."""

    def __init__(self, preset: Preset) -> None:
        super().__init__()
        self.preset = preset
        self.templates = templates_of(preset)
        self.clip = build_clip(preset)
        self.decoder = Decoder(preset, prompts=len(self.templates))

    @classmethod
    def from_checkpoint(cls, path: str | Path, preset: str | None = None) -> "SED":
        """Load a published detectron2 `.pth` or a `.safetensors` of this package, in evaluation mode.

        Args:
            path: the checkpoint.
            preset: name of its preset; None means read from the file.

        Raises:
            InputError: the file is missing, broken, or does not fit the preset.
        """
        from .checkpoint import load

        return load(path, preset)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.decoder.conv1.weight.device

    def encode_vocabulary(
        self, names: Sequence[str], progress: Callable[[int, int], None] | None = None
    ) -> Tensor:
        """Embed category names, once per vocabulary, without gradients.

        Args:
            names: T category names; ", " separates synonyms.
            progress: called with (sentences done, sentences in all).

        Returns:
            Unit vectors, float32 (T, P, C).

        Raises:
            InputError: no names, an empty one, or one that is too long.
        """
        return encode_vocabulary(self.clip, names, self.templates, progress)

    def encode_images(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Embed images and project their guidance.

        Args:
            images: RGB uint8 (B, H, W, 3), any H and W.

        Returns:
            The embedding, (B, C, h, h), and the image guidance of stages 1, 2, 3: (B, _, 2h, 2h),
            (B, _, 4h, 4h), (B, _, 8h, 8h).
        """
        pixels = to_pixels(images.to(self.device), self.preset.image_size)
        embed, maps = dense_features(self.clip.visual, pixels)
        return embed, self.decoder.image_guidance(maps)

    def forward(self, images: Tensor, text: Tensor) -> Output:
        """Logits of every category at every head, nothing rejected.

        Args:
            images: RGB uint8 (B, H, W, 3), any H and W.
            text: unit vectors of `encode_vocabulary`, (T, P, C) for all images, or (B, T, P, C).

        Returns:
            Logits (B, T, 8h, 8h) and three aux maps (B, T, h, h), (B, T, 2h, 2h), (B, T, 4h, 4h).
        """
        return self.decode(*self.encode_images(images), text)

    def decode(self, embed: Tensor, guidance: Sequence[Tensor], text: Tensor) -> Output:
        """`forward` for images that are embedded already.

        Args:
            embed: the embedding of `encode_images`, (B, C, h, h).
            guidance: its image guidance.
            text: as in `forward`.

        Returns:
            As `forward`.
        """
        heads = self.decoder(embed, guidance, text.to(self.device))
        first, second, third, last = (logits.unflatten(0, (embed.shape[0], -1)) for logits in heads)
        return Output(logits=last, aux=(first, second, third))

    @torch.no_grad()
    def reject(self, image: Tensor, text: Tensor, k: int | None = VOTE_RANKS) -> Rejected:
        """Decode one image and drop after each aux head the categories that are nowhere among the k best.

        Args:
            image: RGB uint8 (H, W, 3).
            text: unit vectors, (T, P, C).
            k: a category survives if it is among the k best at some pixel; 1 to 8; None keeps them all.

        Returns:
            Logits (K3, 8h, 8h) of the categories left, and which survived at each point.

        Raises:
            InputError: k is not 1 to 8.
        """
        return self.decode_rejecting(*self.encode_images(image.unsqueeze(0)), text, k)

    @torch.no_grad()
    def decode_rejecting(
        self, embed: Tensor, guidance: Sequence[Tensor], text: Tensor, k: int | None = VOTE_RANKS
    ) -> Rejected:
        """`reject` for an image that is embedded already.

        Args:
            embed: the embedding of `encode_images`, (1, C, h, h).
            guidance: its image guidance.
            text: unit vectors, (T, P, C).
            k: as in `reject`.

        Returns:
            As `reject`.

        Raises:
            InputError: k is not 1 to 8.
        """
        if k is None:
            logits = self.decode(embed, guidance, text).logits[0]
            every = torch.arange(len(logits), device=logits.device)
            return Rejected(logits=logits, kept=every, survivors=(every, every, every))
        if not 1 <= k <= VOTE_RANKS:
            raise InputError(
                f"k is {k}; rejection counts the first {VOTE_RANKS} ranks, so give 1 to {VOTE_RANKS}"
            )
        kept_by_point: list[Tensor] = []

        def keep(logits: Tensor) -> Tensor:
            kept_by_point.append(survivors(vote_table(logits), k))
            return kept_by_point[-1]

        logits = self.decoder(embed, guidance, text.to(self.device), keep)[-1]
        first, second, third = kept_by_point
        return Rejected(logits=logits, kept=first[second][third], survivors=(first, second, third))

    @torch.no_grad()
    def segment(self, image: Tensor, text: Tensor, k: int | None = VOTE_RANKS) -> Tensor:
        """Label every pixel of one image.

        Args:
            image: RGB uint8 (H, W, 3).
            text: unit vectors, (T, P, C).
            k: as in `reject`.

        Returns:
            Category indices, int64 (H, W).

        Raises:
            InputError: k is not 1 to 8.
        """
        left = self.reject(image, text, k)
        return label_map(left.logits, left.kept, *image.shape[:2])


def is_out_of_memory(error: BaseException) -> bool:
    """Whether PyTorch raised `error` because the memory of the GPU or of the CPU is too small."""
    # For the CPU PyTorch has no exception of its own.
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)
