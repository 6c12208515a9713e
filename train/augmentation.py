"""From an image with labels to the crop that training sees, in published SED's order."""

import numpy as np
from PIL import Image

from ..runtime.images import short_side_size
from .config import TrainConfig
from .datasets import IGNORED, Sample

BRIGHTNESS = 32.0
CONTRAST = (0.5, 1.5)
SATURATION = (0.5, 1.5)
# In OpenCV's unit of two degrees.
HUE = 18
# Pillow's hue has 255 steps, of which 0 and 255 are the same red.
HUES = 255
# The grey level that published SED pads with.
GREY = 128


def augmented(sample: Sample, config: TrainConfig, random: np.random.Generator) -> Sample:
    """Resize, crop, change colours, mirror, pad.

    Args:
        sample: an image with labels, of any size.
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


def change_colours(image: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Change brightness, then contrast, saturation and hue, or contrast last; each of them half of the time.

    Brightness adds up to 32 of 255, contrast and saturation multiply by 0.5 to 1.5, hue turns by up to 36
    degrees.

    Args:
        image: RGB uint8 (H, W, 3).
        random: where to draw from.

    Returns:
        RGB uint8 (H, W, 3).
    """
    image = brightness(image, random)
    if random.random() < 0.5:
        return hue(saturation(contrast(image, random), random), random)
    return contrast(hue(saturation(image, random), random), random)


def brightness(image: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Half of the time, add up to 32 or take as much away."""
    if random.random() < 0.5:
        return image
    return scaled(image, offset=random.uniform(-BRIGHTNESS, BRIGHTNESS))


def contrast(image: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Half of the time, multiply by 0.5 to 1.5."""
    if random.random() < 0.5:
        return image
    return scaled(image, factor=random.uniform(*CONTRAST))


def saturation(image: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Half of the time, multiply the saturation by 0.5 to 1.5."""
    if random.random() < 0.5:
        return image
    hsv = to_hsv(image)
    hsv[..., 1] = scaled(hsv[..., 1], factor=random.uniform(*SATURATION))
    return to_rgb(hsv)


def hue(image: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Half of the time, turn the hue by a multiple of two degrees up to 36."""
    if random.random() < 0.5:
        return image
    turn = round(int(random.integers(-HUE, HUE + 1)) * HUES / 180)
    hsv = to_hsv(image)
    hsv[..., 0] = ((np.arange(256) + turn) % HUES).astype(np.uint8)[hsv[..., 0]]
    return to_rgb(hsv)


def scaled(values: np.ndarray, factor: float = 1.0, offset: float = 0.0) -> np.ndarray:
    """uint8 values times `factor` plus `offset`, cut to 0..255 and rounded down."""
    table = np.clip(np.arange(256, dtype=np.float32) * np.float32(factor) + np.float32(offset), 0, 255)
    return table.astype(np.uint8)[values]


def to_hsv(image: np.ndarray) -> np.ndarray:
    """RGB to hue, saturation and value, uint8."""
    return np.array(Image.fromarray(image).convert("HSV"))


def to_rgb(hsv: np.ndarray) -> np.ndarray:
    """Hue, saturation and value to RGB, uint8."""
    return np.asarray(Image.fromarray(hsv, "HSV").convert("RGB"))
