"""From a picture with labels to the crop that training sees, in published SED's order."""

import numpy as np
from PIL import Image

from ..runtime.resize import short_side_size
from .colour_augmentation import change_colours
from .config import TrainConfig
from .datasets import IGNORED, Sample

# What published SED pads pictures with.
GREY = 128


def augmented(sample: Sample, config: TrainConfig, random: np.random.Generator) -> Sample:
    """Resize, crop, change colours, mirror, pad.

    Args:
        sample: a picture with labels, of any size.
        config: its settings from `crop` to `colour`.
        random: where to draw from.

    Returns:
        Image and labels of crop x crop pixels; what is padded is grey and ignored.
    """
    image, labels = sample.image, sample.labels
    if config.short_side is not None:
        height, width = labels.shape
        height, width = short_side_size(height, width, config.short_side, config.long_side)
        image = np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))
        labels = np.asarray(Image.fromarray(labels).resize((width, height), Image.Resampling.NEAREST))
    top, left = (int(random.integers(max(side - config.crop, 0) + 1)) for side in labels.shape)
    window = np.s_[top : top + config.crop, left : left + config.crop]
    image, labels = image[window], labels[window]
    if config.colour:
        image = change_colours(image, random)
    if config.flip and random.random() < 0.5:
        image, labels = image[:, ::-1], labels[:, ::-1]
    missing = [(0, config.crop - side) for side in labels.shape]
    if any(after for _, after in missing):
        image = np.pad(image, (*missing, (0, 0)), constant_values=GREY)
        labels = np.pad(labels, missing, constant_values=IGNORED)
    return Sample(np.ascontiguousarray(image), np.ascontiguousarray(labels))
