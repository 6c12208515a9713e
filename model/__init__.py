"""SED in PyTorch, exact to the published checkpoints."""

from .presets import PRESETS, Preset, preset_named
from .sed import SED, Output, Rejected, is_out_of_memory

__all__ = ["PRESETS", "SED", "Output", "Preset", "Rejected", "is_out_of_memory", "preset_named"]
