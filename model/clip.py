"""CLIP from open_clip and timm, and its dense image features: one embedding per position."""

from typing import cast

import open_clip
import timm
from open_clip.model import CLIP
from open_clip.timm_model import TimmModel
from timm.layers import NormMlpClassifierHead
from timm.models.convnext import ConvNeXt, convnext_atto
from torch import Tensor, nn

from .presets import SED_TINY, Preset

TINY_CLIP = {
    "embed_dim": SED_TINY.embed_dim,
    "vision_cfg": {
        "timm_model_name": "sed_tiny_convnext",
        "timm_model_pretrained": False,
        "timm_pool": "",
        "timm_proj": "linear",
        "image_size": SED_TINY.image_size,
    },
    "text_cfg": {"context_length": 40, "vocab_size": 49408, "width": 128, "heads": 4, "layers": 3},
}


@timm.models.register_model
def sed_tiny_convnext(pretrained: bool = False, **kwargs: object) -> ConvNeXt:
    """timm's ConvNeXt in the sizes of sed-tiny."""
    sizes = {
        "depths": (2, 2, 4, 2),
        "dims": SED_TINY.trunk_widths,
        "conv_mlp": False,
        # It is trained from scratch in an hour; with timm's 1e-6 a block would have no effect for most of it.
        "ls_init_value": 0.3,
    }
    return convnext_atto(pretrained=pretrained, **{**kwargs, **sizes})


def build_clip(preset: Preset) -> CLIP:
    """The open_clip model of `preset` with random weights."""
    config = TINY_CLIP if preset is SED_TINY else open_clip.get_model_config(preset.clip)
    return CLIP(**config)


def dense_features(visual: TimmModel, pixels: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Run the image tower, and its head at each position of the last map separately.

    Args:
        visual: the image tower of `build_clip`.
        pixels: normalised images, (B, 3, S, S).

    Returns:
        The embedding, (B, C, S/32, S/32), not normalised, and [res2, res3, res4, res5],
        (B, width, S/stride, S/stride) at strides 4, 8, 16 and 32.
    """
    trunk, head = cast(ConvNeXt, visual.trunk), cast(nn.Module, visual.head)
    last, maps = cast(tuple[Tensor, list[Tensor]], trunk.forward_intermediates(pixels))
    normed = cast(NormMlpClassifierHead, trunk.head).norm(last)
    embed = head(normed.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    return embed, maps
