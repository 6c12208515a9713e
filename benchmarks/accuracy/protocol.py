"""The published evaluation: its resizes and its figures."""

import numpy as np
from PIL import Image

from ...train.datasets import Sample

# Pixels of the shorter side of every image, before the network's own resize.
SHORT_SIDE = 640


def limit_short_side(sample: Sample, limit: int | None) -> Sample:
    """An image and its labels with the shorter side resized to `limit` pixels where it is longer.

    As the preparation script of MaskFormer's ADE20K-Full does it with OpenCV: the image bilinear at
    half-pixel centres without antialiasing, labels by the pixel at floor(index * old / new). That script
    also stores the image as JPEG again, which is left out.
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
    # Pillow truncates what it interpolates between 8-bit values; OpenCV rounds it.
    image = Image.fromarray(channel.astype(np.float32))
    box = (0, 0, channel.shape[1], channel.shape[0])
    resized = image.transform((width, height), Image.Transform.EXTENT, box, Image.Resampling.BILINEAR)
    return np.rint(np.asarray(resized)).astype(np.uint8)


# The sets of the paper's table by their names here: A-847, PC-459, A-150, PC-59, PAS-20.
DATA = ("ade847", "pc459", "ade150", "pc59", "voc20")

MIOU = {
    ("sed-b", "none"): (11.2, 18.6, 31.8, 57.7, 94.4),
    ("sed-b", "topk:8"): (11.4, 18.6, 31.6, 57.3, 94.4),
    ("sed-l", "none"): (13.7, 22.1, 35.3, 60.9, 96.1),
    ("sed-l", "topk:8"): (13.9, 22.6, 35.2, 60.6, 96.1),
}


def published_miou(preset: str, rejection: str, data: str) -> float | None:
    """The paper's mIoU in percent on the validation split of a set; None where it has none.

    Args:
        preset: for example "sed-b".
        rejection: policy as on the command line.
        data: name of the set.
    """
    row = MIOU.get((preset, rejection))
    return None if row is None or data not in DATA else row[DATA.index(data)]
