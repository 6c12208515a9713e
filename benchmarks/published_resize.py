"""The published resizes: of every picture, and of those of ADE20K-847 with their labels before that."""

import numpy as np
from PIL import Image

from ..train.datasets import Sample

# Pixels of the shorter side of every picture, before the network's own resize.
SHORT_SIDE = 640


def limit_short_side(sample: Sample, limit: int | None) -> Sample:
    """A picture and its labels with the shorter side resized to `limit` pixels where it is longer.

    As the preparation script of MaskFormer's ADE20K-Full does it with OpenCV: the picture bilinear at
    half-pixel centres without antialiasing, labels by the pixel at floor(index * old / new). That script
    also stores the picture as JPEG again, which is left out.
    """
    height, width = sample.labels.shape
    if limit is None or min(height, width) <= limit:
        return sample
    if width >= height:
        new_height, new_width = limit, round(width / height * limit)
    else:
        new_height, new_width = round(height / width * limit), limit
    channels = [_bilinear(channel, new_height, new_width) for channel in np.moveaxis(sample.image, 2, 0)]
    rows = np.arange(new_height) * height // new_height
    columns = np.arange(new_width) * width // new_width
    return Sample(np.stack(channels, axis=2), sample.labels[rows[:, None], columns])


def _bilinear(channel: np.ndarray, height: int, width: int) -> np.ndarray:
    # Pillow cuts off what it interpolates between 8-bit values; OpenCV rounds it.
    image = Image.fromarray(channel.astype(np.float32))
    box = (0, 0, channel.shape[1], channel.shape[0])
    resized = image.transform((width, height), Image.Transform.EXTENT, box, Image.Resampling.BILINEAR)
    return np.rint(np.asarray(resized)).astype(np.uint8)
