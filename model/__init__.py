"""SED in PyTorch, exact to the published checkpoints."""

from .presets import PRESETS, Preset, preset_named
from .sed import SED, Output, Rejected

__all__ = ["PRESETS", "SED", "Output", "Preset", "Rejected", "preset_named"]
