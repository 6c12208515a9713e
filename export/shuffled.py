"""Transposed convolutions of stride 2 for engines that have none in their precision."""

import torch
from torch import Tensor, nn


def shuffled(layer: nn.ConvTranspose2d) -> nn.Sequential:
    """The same as a convolution to four channels for each, which then become the 2x2 pixels of one.

    Pixel (2y + r) of the result reads row y + d at the tap k = r + padding - 2d of the transposed kernel.

    Args:
        layer: kernel 2 without padding, or kernel 4 with padding 1; stride 2.
    """
    weight: Tensor = layer.weight.detach()
    channels, out, size, _ = weight.shape
    reach = size // 2 - 1
    kernel = weight.new_zeros(out, 2, 2, channels, 2 * reach + 1, 2 * reach + 1)
    taps = [
        (r, d, r + reach - 2 * d)
        for r in (0, 1)
        for d in range(-reach, reach + 1)
        if 0 <= r + reach - 2 * d < size
    ]
    for r, down, k in taps:
        for s, across, m in taps:
            kernel[:, r, s, :, reach + down, reach + across] = weight[:, :, k, m].T
    with torch.device("meta"):
        conv = nn.Conv2d(channels, 4 * out, 2 * reach + 1, padding=reach, bias=layer.bias is not None)
    conv.weight = nn.Parameter(kernel.flatten(0, 2), requires_grad=False)
    if layer.bias is not None:
        conv.bias = nn.Parameter(layer.bias.detach().repeat_interleave(4), requires_grad=False)
    return nn.Sequential(conv, nn.PixelShuffle(2))
