"""ConvNeXt in a form for fast graphs: channels stay in their axis, and linear layers are 1x1 convolutions.

timm moves the channels of every block to the last axis for its norm and linear layers, and back. Engines
execute each move as a pass over the map, and keep the channels last in memory whatever the axes say.
"""

import copy
from typing import cast

import torch
from open_clip.timm_model import TimmModel
from timm.layers import LayerNorm2d
from timm.models.convnext import ConvNeXtBlock
from torch import Tensor, nn


class ChannelNorm(nn.Module):
    """LayerNorm over the channels of a map, without its weight and bias."""

    def __init__(self, eps: float) -> None:
        super().__init__()
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) to the same: (x - mean) / sqrt(variance + eps) at each position."""
        centred = x - x.mean(1, keepdim=True)
        return centred * torch.rsqrt((centred * centred).mean(1, keepdim=True) + self.eps)


class AffineChannelNorm(nn.Module):
    """timm's LayerNorm2d, with the channels in their axis throughout."""

    def __init__(self, norm: LayerNorm2d) -> None:
        super().__init__()
        self.normalise = ChannelNorm(norm.eps)
        self.weight, self.bias = norm.weight, norm.bias

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) to the same."""
        normed: Tensor = self.normalise(x) * self.weight.view(-1, 1, 1) + self.bias.view(-1, 1, 1)
        return normed


class PointwiseBlock(nn.Module):
    """A ConvNeXt block whose linear layers are 1x1 convolutions.

    The weight and bias of its norm are folded into the first of them, the layer scale into the second.
    """

    def __init__(self, block: ConvNeXtBlock) -> None:
        super().__init__()
        self.conv_dw = block.conv_dw
        first, second = cast(nn.Linear, block.mlp.fc1), cast(nn.Linear, block.mlp.fc2)
        self.mlp = PointwiseMlp(block.norm, first, block.mlp.act, second, block.gamma)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) to the same."""
        refined: Tensor = x + self.mlp(self.conv_dw(x))
        return refined


class PointwiseMlp(nn.Sequential):
    """Norm, linear layer, activation, linear layer and scale, over the channels of a map (B, C, h, w)."""

    def __init__(
        self,
        norm: nn.LayerNorm,
        first: nn.Linear,
        activation: nn.Module,
        second: nn.Linear,
        scale: Tensor | None = None,
    ) -> None:
        super().__init__(
            ChannelNorm(norm.eps),
            as_convolution(after_norm(first, norm)),
            activation,
            as_convolution(scaled(second, scale)),
        )


def after_norm(linear: nn.Linear, norm: nn.LayerNorm) -> nn.Linear:
    """The linear layer that follows a norm, with the norm's weight and bias folded into it."""
    weight, bias = linear.weight.detach(), linear.bias.detach()
    return _linear(weight * norm.weight.detach(), bias + weight @ norm.bias.detach())


def scaled(linear: nn.Linear, scale: Tensor | None) -> nn.Linear:
    """The linear layer with its outputs multiplied by `scale`, (out,); None leaves them."""
    if scale is None:
        return linear
    return _linear(
        linear.weight.detach() * scale.detach().unsqueeze(1), linear.bias.detach() * scale.detach()
    )


def _linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    # On "meta", since drawing random weights that are replaced would advance the random generator.
    with torch.device("meta"):
        layer = nn.Linear(weight.shape[1], weight.shape[0])
    layer.weight = nn.Parameter(weight, requires_grad=False)
    layer.bias = nn.Parameter(bias, requires_grad=False)
    return layer


def as_convolution(linear: nn.Linear) -> nn.Conv2d:
    """A linear layer as a 1x1 convolution, from (B, in, h, w) to (B, out, h, w)."""
    with torch.device("meta"):
        layer = nn.Conv2d(linear.in_features, linear.out_features, 1)
    layer.weight = nn.Parameter(linear.weight.detach()[:, :, None, None], requires_grad=False)
    layer.bias = nn.Parameter(linear.bias.detach(), requires_grad=False)
    return layer


def pointwise_tower(visual: TimmModel) -> TimmModel:
    """A copy of an image tower with the norms and blocks of this module; it computes the same."""
    tower = copy.deepcopy(visual)
    _replace(tower)
    return tower


def _replace(module: nn.Module) -> None:
    for name, child in module.named_children():
        if isinstance(child, ConvNeXtBlock):
            setattr(module, name, PointwiseBlock(child))
        elif isinstance(child, LayerNorm2d):
            setattr(module, name, AffineChannelNorm(child))
        else:
            _replace(child)
