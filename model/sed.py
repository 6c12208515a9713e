"""SED: open-vocabulary segmentation with a CLIP cost map, a three-stage decoder and early rejection."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from ..errors import InputError
from .clip import build_clip, dense_features
from .decoder import CostMap, Decoder
from .labels import VOTE_RANKS, label_map, survivors, to_pixels, vote_table
from .presets import Preset
from .scout import Scout
from .text import encode_vocabulary, templates_of


@dataclass(frozen=True)
class Output:
    """What one forward pass gives.

    Attributes:
        logits: (B, T, 8h, 8w), before the sigmoid.
        aux: the aux heads' logits, (B, T, h, w), (B, T, 2h, 2w), (B, T, 4h, 4w).
    """

    logits: Tensor
    aux: tuple[Tensor, Tensor, Tensor]


@dataclass(frozen=True)
class Rejected:
    """What a pass with early rejection gives.

    Attributes:
        logits: (K3, 8h, 8w) of the categories left.
        kept: int64 (K3,), which categories those are.
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
        self.cost_map = CostMap()
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
            InputError: no names, or an empty one.
        """
        with torch.no_grad():
            return encode_vocabulary(self.clip, names, self.templates, progress=progress)

    def encode_images(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Embed pictures and project their guidance.

        Args:
            images: RGB uint8 (B, H, W, 3), any H and W.

        Returns:
            The embedding, (B, C, h, h), and the image guidance of stages 1, 2, 3.
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
            Logits (B, T, 8h, 8w) and three aux maps (B, T, h, h), (B, T, 2h, 2h), (B, T, 4h, 4h).
        """
        return self.decode(*self.encode_images(images), text)

    def decode(self, embed: Tensor, guidance: Sequence[Tensor], text: Tensor) -> Output:
        """Logits of every category of pictures that `encode_images` embedded.

        Args:
            embed: (B, C, h, h).
            guidance: the image guidance of stages 1, 2, 3.
            text: unit vectors, (T, P, C) for all images, or (B, T, P, C).

        Returns:
            Logits (B, T, 8h, 8w) and three aux maps (B, T, h, h), (B, T, 2h, 2h), (B, T, 4h, 4h).
        """
        decoder, batch = self.decoder, embed.shape[0]
        guide = self.cost_map(embed, text.to(self.device))
        x = decoder.conv1(guide)
        # The aux heads learn from the features but do not shape them.
        logits = [decoder.head0(x.detach())]
        steps = zip(
            decoder.stages,
            decoder.decoder_corr_guidance_projection,
            guidance,
            decoder.stage_heads,
            strict=True,
        )
        for stage, project, image, head in steps:
            guide = project(guide)
            x = stage(x, image, guide)
            logits.append(head(x if head is decoder.head else x.detach()))
        maps = [each.squeeze(1).unflatten(0, (batch, -1)) for each in logits]
        return Output(logits=maps[3], aux=(maps[0], maps[1], maps[2]))

    @torch.no_grad()
    def reject(self, image: Tensor, text: Tensor, k: int = VOTE_RANKS) -> Rejected:
        """One image through the decoder, dropping after each aux head the categories no pixel wants.

        Args:
            image: RGB uint8 (H, W, 3).
            text: unit vectors, (T, P, C).
            k: a category survives if it is among the k best at some pixel; 1 to 8.

        Returns:
            Logits (K3, 8h, 8w) of the categories left, and which survived at each point.

        Raises:
            InputError: k is not 1 to 8.
        """
        return self.decode_rejecting(*self.encode_images(image.unsqueeze(0)), text, k)

    @torch.no_grad()
    def decode_rejecting(
        self, embed: Tensor, guidance: Sequence[Tensor], text: Tensor, k: int | None = VOTE_RANKS
    ) -> Rejected:
        """`reject` for one picture that `encode_images` embedded.

        Args:
            embed: (1, C, h, h).
            guidance: the image guidance of stages 1, 2, 3.
            text: unit vectors, (T, P, C).
            k: a category survives if it is among the k best at some pixel; 1 to 8; None keeps them all.

        Returns:
            Logits (K3, 8h, 8w) of the categories left, and which survived at each point.

        Raises:
            InputError: k is not 1 to 8.
        """
        if k is None:
            logits = self.decode(embed, guidance, text).logits[0]
            every = torch.arange(len(text), device=logits.device)
            return Rejected(logits=logits, kept=every, survivors=(every, every, every))
        if not 1 <= k <= VOTE_RANKS:
            raise InputError(
                f"k is {k}; rejection counts the first {VOTE_RANKS} ranks, so give 1 to {VOTE_RANKS}"
            )
        decoder, text = self.decoder, text.to(self.device)
        aux = Scout(decoder.conv1, decoder.head0, self.preset.grid)(self.cost_map(embed, text))
        dropped = []
        chosen = survivors(vote_table(aux), k)
        dropped.append(chosen)
        kept = chosen
        guide = self.cost_map(embed, text[kept])
        x = decoder.conv1(guide)
        for index, stage in enumerate(decoder.stages):
            if index > 0:
                chosen = survivors(vote_table(aux), k)
                dropped.append(chosen)
                kept, x, guide = kept[chosen], x[chosen], guide[chosen]
            guide = decoder.decoder_corr_guidance_projection[index](guide)
            x = stage(x, guidance[index], guide)
            aux = decoder.stage_heads[index](x).squeeze(1)
        return Rejected(logits=aux, kept=kept, survivors=(dropped[0], dropped[1], dropped[2]))

    @torch.no_grad()
    def segment(self, image: Tensor, text: Tensor, k: int | None = VOTE_RANKS) -> Tensor:
        """Label every pixel of one image.

        Args:
            image: RGB uint8 (H, W, 3).
            text: unit vectors, (T, P, C).
            k: early rejection's k, 1 to 8; None means no rejection.

        Returns:
            Category indices, int64 (H, W).

        Raises:
            InputError: k is not 1 to 8.
        """
        left = self.decode_rejecting(*self.encode_images(image.unsqueeze(0)), text, k)
        return label_map(left.logits, left.kept, *image.shape[:2])
