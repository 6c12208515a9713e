"""SED's decoder: first convolution, guidance projections, three stages and four heads."""

from collections.abc import Sequence

from torch import Tensor, nn

from .presets import Preset
from .stage import DecoderStage


class Head(nn.Conv2d):
    """3x3 convolution from features to one logit per pixel."""

    def __init__(self, width: int) -> None:
        super().__init__(width, 1, 3, padding=1)


class Decoder(nn.Module):
    """The modules of the decoder; their names are the published checkpoints'."""

    def __init__(self, preset: Preset, prompts: int) -> None:
        super().__init__()
        widths, guidance, pool = preset.decoder_widths, preset.guidance_widths, preset.attention_pool
        self.conv1 = nn.Conv2d(prompts, widths[0], 7, padding=3)
        res2, res3, res4, _ = preset.trunk_widths
        self.decoder_guidance_projection = nn.ModuleList(
            nn.Sequential(nn.Conv2d(width, out, 3, padding=1), nn.ReLU())
            for width, out in zip((res4, res3, res2), guidance, strict=True)
        )
        self.decoder_corr_guidance_projection = nn.ModuleList(
            nn.Sequential(nn.ConvTranspose2d(width, out, 2, stride=2), nn.ReLU())
            for width, out in zip((prompts, *guidance[:2]), guidance, strict=True)
        )
        self.decoder1 = DecoderStage(widths[0], guidance[0], widths[1], pool)
        self.decoder2 = DecoderStage(widths[1], guidance[1], widths[2], pool)
        self.decoder3 = DecoderStage(widths[2], guidance[2], widths[3], pool)
        self.head0, self.head1, self.head2 = Head(widths[0]), Head(widths[1]), Head(widths[2])
        self.head = Head(widths[3])

    @property
    def stages(self) -> tuple[DecoderStage, DecoderStage, DecoderStage]:
        """The three stages in order."""
        return self.decoder1, self.decoder2, self.decoder3

    @property
    def stage_heads(self) -> tuple[nn.Conv2d, nn.Conv2d, nn.Conv2d]:
        """The head that reads each stage's output."""
        return self.head1, self.head2, self.head

    def image_guidance(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Project the trunk's maps.

        Args:
            maps: res2, res3, res4, res5.

        Returns:
            For stages 1, 2, 3: (B, guidance, 2h, 2w), (B, guidance, 4h, 4w), (B, guidance, 8h, 8w).
        """
        res2, res3, res4, _ = maps
        sources = (res4, res3, res2)
        return [
            project(source) for project, source in zip(self.decoder_guidance_projection, sources, strict=True)
        ]
