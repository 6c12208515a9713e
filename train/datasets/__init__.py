"""Data sets for training and evaluation: the seven published ones, procedural scenes, and own folders."""

from .dataset import IGNORED, Dataset, Sample
from .opening import NAMES, MissingDataError, open_dataset
from .scenes import Scenes

__all__ = ["IGNORED", "NAMES", "Dataset", "MissingDataError", "Sample", "Scenes", "open_dataset"]
