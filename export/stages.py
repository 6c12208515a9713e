"""One thin module per stage of the deployed network; each becomes one ONNX graph."""

import torch
from torch import Tensor, nn

from ..model import SED
from ..model.clip import dense_features
from ..model.cost import cost_map, scout_kernel, scout_logits
from ..model.labels import label_band
from ..model.pixels import to_pixels
from ..model.votes import vote_table


class TextStage(nn.Module):
    """Tokens to sentence embeddings."""

    def __init__(self, model: SED) -> None:
        super().__init__()
        self.clip = model.clip

    def forward(self, tokens: Tensor) -> Tensor:
        """int64 (N, context length) to unit vectors, (N, C)."""
        embedding: Tensor = self.clip.encode_text(tokens, normalize=True)
        return embedding


class PixelsStage(nn.Module):
    """A picture to the network's square input."""

    def __init__(self, model: SED) -> None:
        super().__init__()
        self.size = model.preset.image_size

    def forward(self, image: Tensor) -> Tensor:
        """uint8 (1, H, W, 3) to float32 (1, 3, S, S)."""
        return to_pixels(image, self.size)


class ImageStage(nn.Module):
    """The image tower and the image guidance of the three decoder stages."""

    def __init__(self, model: SED) -> None:
        super().__init__()
        self.visual = model.clip.visual
        self.decoder = model.decoder

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Embed a batch.

        (B, 3, S, S) to embed (B, C, h, h) and guidance (B, _, 2h, 2h), (B, _, 4h, 4h), (B, _, 8h, 8h).
        """
        embed, maps = dense_features(self.visual, pixels)
        first, second, third = self.decoder.image_guidance(maps)
        return embed, first, second, third


class ScoutStage(nn.Module):
    """head0 of every category, without the features it is defined on."""

    weight: Tensor
    bias: Tensor
    head_bias: Tensor

    def __init__(self, model: SED) -> None:
        super().__init__()
        weight, bias = scout_kernel(model.decoder.conv1, model.decoder.head0)
        assert model.decoder.head0.bias is not None
        self.register_buffer("weight", weight.detach())
        self.register_buffer("bias", bias.detach())
        self.register_buffer("head_bias", model.decoder.head0.bias.detach())

    def forward(self, embed: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
        """(1, C, h, h) and (T, P, C) to logits0 (T, h, h) and votes0 (8, T)."""
        logits = scout_logits(cost_map(embed, text), self.weight, self.bias, self.head_bias)
        return logits, vote_table(logits)


class DecodeStage(nn.Module):
    """What decode1, decode2 and decode3 share: the cost guidance, the decoder stage, its head."""

    own_kernel: Tensor
    image_kernel: Tensor

    def __init__(self, model: SED, index: int) -> None:
        super().__init__()
        self.project = model.decoder.decoder_corr_guidance_projection[index]
        self.stage = model.decoder.stages[index]
        self.head = model.decoder.stage_heads[index]
        own, image = self.stage.conv.split_kernel()
        self.register_buffer("own_kernel", own.detach())
        self.register_buffer("image_kernel", image.detach())

    def decode(self, x: Tensor, cost: Tensor, guidance: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Run the decoder stage.

        Features (K, width, h, h), cost map or guidance (K, _, h, h) and image guidance (1, _, 2h, 2h) to the
        next features and cost guidance (K, _, 2h, 2h) and the head's logits (K, 2h, 2h).
        """
        cost = self.project(cost)
        x = self.stage(x, guidance, cost, (self.own_kernel, self.image_kernel))
        return x, cost, self.head(x).squeeze(1)


class Decode1Stage(DecodeStage):
    """The cost map's features and decoder stage 1, of the categories that head0 kept."""

    def __init__(self, model: SED) -> None:
        super().__init__(model, 0)
        self.conv1 = model.decoder.conv1

    def forward(
        self, embed: Tensor, text: Tensor, kept0: Tensor, guidance1: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Decode the kept categories.

        (1, C, h, h), (T, P, C), int64 (K1,), (1, _, 2h, 2h) to x1 and cost1 (K1, _, 2h, 2h), logits1
        (K1, 2h, 2h) and votes1 (8, K1).
        """
        cost = cost_map(embed, text.index_select(0, kept0))
        x, cost, logits = self.decode(self.conv1(cost), cost, guidance1)
        return x, cost, logits, vote_table(logits)


class Decode2Stage(DecodeStage):
    """Decoder stage 2, of the categories that head1 kept."""

    def __init__(self, model: SED) -> None:
        super().__init__(model, 1)

    def forward(
        self, x1: Tensor, cost1: Tensor, kept1: Tensor, guidance2: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Decode the kept categories.

        (K1, _, 2h, 2h) twice, int64 (K2,), (1, _, 4h, 4h) to x2 and cost2 (K2, _, 4h, 4h), logits2
        (K2, 4h, 4h) and votes2 (8, K2).
        """
        x, cost, logits = self.decode(x1.index_select(0, kept1), cost1.index_select(0, kept1), guidance2)
        return x, cost, logits, vote_table(logits)


class Decode3Stage(DecodeStage):
    """Decoder stage 3, of the categories that head2 kept."""

    def __init__(self, model: SED) -> None:
        super().__init__(model, 2)

    def forward(self, x2: Tensor, cost2: Tensor, kept2: Tensor, guidance3: Tensor) -> Tensor:
        """(K2, _, 4h, 4h) twice, int64 (K3,), (1, _, 8h, 8h) to logits (K3, 8h, 8h)."""
        return self.decode(x2.index_select(0, kept2), cost2.index_select(0, kept2), guidance3)[2]


class LabelStage(nn.Module):
    """Logits to labels and scores of a band of output rows."""

    def forward(self, logits: Tensor, kept: Tensor, rows: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
        """(K3, 8h, 8h), int64 (K3,), (R,), (W,) to labels int32 (R, W) and scores (R, W)."""
        labels, scores = label_band(logits, kept, rows, columns)
        # TensorRT has no 16-bit unsigned type; the host narrows the result.
        return labels.to(torch.int32), scores
