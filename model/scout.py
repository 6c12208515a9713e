"""The scout: it scores every category without making the 128 channels that head0 is defined on."""

import torch
from torch import Tensor, nn

from .decoder import Head


def scout_kernel(conv1: nn.Conv2d, head0: nn.Conv2d) -> tuple[Tensor, Tensor]:
    """Fold head0 into conv1: both are linear with nothing between them.

    One output channel per tap (a, b) of head0, in row-major order:
    weight[a, b] = sum_o head0[o, a, b] * conv1[o], bias[a, b] = sum_o head0[o, a, b] * bias1[o].

    Args:
        conv1: 7x7, P to width channels, padding 3.
        head0: 3x3, width channels to 1, padding 1.

    Returns:
        Weight (9, P, 7, 7) and bias (9,).
    """
    taps = head0.weight[0].flatten(1).T
    weight = (taps @ conv1.weight.flatten(1)).unflatten(1, conv1.weight.shape[1:])
    assert conv1.bias is not None
    return weight, taps @ conv1.bias


class Scout(nn.Module):
    """head0's map of every category, equal to head0(conv1(cost)) to rounding, borders included.

    Tap (a, b) of head0 reads channel (a, b) of the folded map, shifted: a head with fixed one-hot weights,
    whose zero padding is head0's own.
    """

    def __init__(self, conv1: nn.Conv2d, head0: nn.Conv2d) -> None:
        """Fold the two as `scout_kernel` does; gradients do not reach them through this."""
        super().__init__()
        weight, bias = scout_kernel(conv1, head0)
        # Both get their values below; drawing random ones first would move the generator.
        with torch.device("meta"):
            self.per_tap = nn.Conv2d(conv1.in_channels, 9, 7, padding=3)
            self.shift = Head(9)
        assert head0.bias is not None and self.shift.bias is not None
        one_hot = torch.eye(9, dtype=weight.dtype, device=weight.device).view(1, 9, 3, 3)
        self.per_tap.weight, self.per_tap.bias = fixed(weight), fixed(bias)
        self.shift.weight, self.shift.bias = fixed(one_hot), fixed(head0.bias)

    def forward(self, cost: Tensor) -> Tensor:
        """(T, P, h, w) to (T, h, w)."""
        logits: Tensor = self.shift(self.per_tap(cost))
        return logits.squeeze(1)


def fixed(values: Tensor) -> nn.Parameter:
    """Weights that are not trained."""
    return nn.Parameter(values.detach(), requires_grad=False)
