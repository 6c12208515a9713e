"""The ConvNeXt block and the class attention of a decoder stage, in the layout that both compute in."""

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..model.attention import HEADS
from ..model.stage import DecoderStage


class BlockAttention(nn.Module):
    """Linear attention whose heads are blocks of one matrix product: nothing is split or transposed for them.

    A summary of full width costs HEADS times the arithmetic of the heads' own, which is little beside the
    projections, and masking its other blocks gives the same.
    """

    blocks: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        head = torch.arange(width) // (width // HEADS)
        self.register_buffer("blocks", (head.unsqueeze(1) == head).to(torch.float32))

    def forward(self, projected: Tensor, alive: Tensor) -> Tensor:
        """Attend along the category axis; `LinearAttention` has the formula, whose T cancels.

        Args:
            projected: queries, keys and values, (pixels, K, 3 width).
            alive: bool (K,), False for categories that nobody attends to.

        Returns:
            (pixels, K, width).
        """
        query, key, value = projected.chunk(3, dim=-1)
        query = F.elu(query) + 1
        key = (F.elu(key) + 1) * alive.to(key.dtype).unsqueeze(-1)
        summary = (key.transpose(1, 2) @ value) * self.blocks
        norm = key.sum(1).unsqueeze(-1) * self.blocks
        return (query @ summary) / (query @ norm + 1e-6)


class TokenBlock(nn.Module):
    """What `DecoderStage` does before its transposed convolution, for one image.

    Everything but the depthwise convolution looks at one pixel of one category, or at one pixel of all, so
    all of it is computed on tokens (pixels, K, width). The layer scale is folded into the linear layer before
    it, and queries, keys and values come from one product.
    """

    def __init__(self, stage: DecoderStage) -> None:
        super().__init__()
        block, attention = stage.cnext, stage.attention
        self.conv_dw, self.norm = block.conv_dw, block.norm
        self.fc1, self.act, self.fc2 = block.mlp.fc1, block.mlp.act, copy.deepcopy(block.mlp.fc2)
        self.norm1, self.norm2, self.mlp = attention.norm1, attention.norm2, attention.MLP
        layers = (attention.attention.q, attention.attention.k, attention.attention.v)
        # Its values follow; drawing random ones first would move the generator.
        with torch.device("meta"):
            self.project = nn.Linear(layers[0].in_features, 3 * layers[0].out_features)
        self.attend = BlockAttention(layers[0].out_features)
        scale = block.gamma
        assert scale is not None and self.fc2.bias is not None
        with torch.no_grad():
            self.fc2.weight.mul_(scale.unsqueeze(1))
            self.fc2.bias.mul_(scale)
            self.project.weight = nn.Parameter(torch.cat([layer.weight for layer in layers]))
            self.project.bias = nn.Parameter(torch.cat([layer.bias for layer in layers]))

    def forward(self, x: Tensor, alive: Tensor) -> Tensor:
        """(K, width, h, w) and bool (K,) to (K, width, h, w)."""
        sides = x.shape[2:]
        convolved = self.conv_dw(x).flatten(2).permute(2, 0, 1)
        tokens = x.flatten(2).permute(2, 0, 1) + self.fc2(self.act(self.fc1(self.norm(convolved))))
        mixed = tokens + self.attend(self.project(self.norm1(tokens)), alive)
        mixed = mixed + self.mlp(self.norm2(mixed))
        # The class attention adds its input once more.
        return (tokens + mixed).permute(1, 2, 0).unflatten(2, sides)
