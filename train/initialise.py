"""Initial weights for training from nothing."""

from torch import nn

from ..model import SED


def initialise(model: SED) -> None:
    """Draw the weights whose usual initial values suit large networks and hold back a tiny one.

    The image trunk's have variance 1 / fan-in (LeCun et al., 1998): timm's fixed deviation of 0.02 suits
    widths of hundreds, and in sed-tiny's makes every block start as next to nothing. Word embeddings start
    ten times as large as open_clip's, without which the text tower takes all things of a colour for the same.
    """
    for module in model.clip.visual.trunk.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.trunc_normal_(module.weight, std=module.weight[0].numel() ** -0.5)
    nn.init.normal_(model.clip.token_embedding.weight, std=0.2)
