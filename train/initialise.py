"""Initial weights for training from nothing."""

from torch import nn

from ..model import SED


def initialise_trunk(model: SED) -> None:
    """Draw the image trunk's weights with variance 1 / fan-in (LeCun et al., 1998).

    timm's fixed deviation of 0.02 suits widths of hundreds; in sed-tiny's it would make every block start as
    next to nothing, and learning to tell shapes would take many times as long.
    """
    for module in model.clip.visual.trunk.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.trunc_normal_(module.weight, std=module.weight[0].numel() ** -0.5)
