"""Images from files, PIL images and arrays as 8-bit RGB, and their resize by the shorter side."""

import stat
import struct
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from ..errors import InputError

ImageSource = str | Path | Image.Image | np.ndarray

MAX_MEGAPIXELS = 100
# The longer side after a resize by the shorter one, in pixels.
LONGEST_SIDE = 2560

# What Pillow's decoders raise on broken content, besides their own OSError subclasses.
DECODING_ERRORS = (OSError, ValueError, SyntaxError, EOFError, TypeError, IndexError, KeyError, struct.error)

# The limit here is checked before a pixel is decoded; Pillow's lower one only warns, which helps nobody.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


def load_image(source: ImageSource) -> np.ndarray:
    """The image as uint8 RGB (H, W, 3), C-contiguous, upright by its EXIF orientation.

    `source` is a path, a PIL image of any mode or a uint8 array (H, W, 3). Transparent parts are shown on
    white, 16-bit grey is scaled to 8 bits, and of an animation the first frame is taken.

    Raises:
        InputError: the file is missing, empty, truncated, no image or no file at all (a folder, pipe, socket
            or device); the image has more than `MAX_MEGAPIXELS` million pixels; the array is not uint8
            (H, W, 3).
    """
    if isinstance(source, np.ndarray):
        return _checked_array(source)
    if isinstance(source, Image.Image):
        return _to_rgb(source, "image")
    if not isinstance(source, str | Path):
        raise InputError(
            f"image: is a {type(source).__name__}, expected a path, a PIL image or a uint8 array (H, W, 3)"
        )
    path = Path(source)
    _check_file(path)
    try:
        with Image.open(path) as image:
            return _to_rgb(image, str(path))
    except Image.UnidentifiedImageError as error:
        raise InputError(
            f"{path}: is not an image that Pillow can read; convert it to PNG or JPEG"
        ) from error
    except Image.DecompressionBombError as error:
        raise InputError(
            f"{path}: has over {MAX_MEGAPIXELS} million pixels, the most that is read; make it smaller first"
        ) from error
    except DECODING_ERRORS as error:
        raise InputError(f"{path}: cannot be read ({error}); check that the file is whole") from error


def _checked_array(array: np.ndarray) -> np.ndarray:
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3 or array.size == 0:
        raise InputError(
            f"image: is an array of {array.dtype} {array.shape}, expected uint8 (H, W, 3) of RGB values"
        )
    _check_size("image", array.shape[1], array.shape[0])
    return np.ascontiguousarray(array)


def _check_file(path: Path) -> None:
    if "\0" in str(path):
        raise InputError(f"{str(path)!r}: no such file, a file name holds no null byte; give an image file")
    try:
        status = path.stat()
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: no such file, or it cannot be reached; give an image file") from error
    if stat.S_ISDIR(status.st_mode):
        raise InputError(f"{path}: is a folder, expected an image file")
    # To open a pipe would wait for a writer, perhaps for ever.
    if not stat.S_ISREG(status.st_mode):
        raise InputError(f"{path}: is a pipe, socket or device, expected an image file")
    if status.st_size == 0:
        raise InputError(f"{path}: is empty (0 bytes), expected an image file")


def _check_size(name: str, width: int, height: int) -> None:
    if width * height > MAX_MEGAPIXELS * 1_000_000:
        raise InputError(
            f"{name}: {width} x {height} is over {MAX_MEGAPIXELS} million pixels, the most that is read; "
            "make it smaller first"
        )
    if width * height == 0:
        raise InputError(f"{name}: {width} x {height} has no pixels")


def _to_rgb(image: Image.Image, name: str) -> np.ndarray:
    _check_size(name, image.width, image.height)
    try:
        upright = ImageOps.exif_transpose(image)
        if upright.mode.startswith("I") or upright.mode == "F":
            return _deep_grey_to_rgb(upright, name)
        if upright.has_transparency_data:
            layer = upright.convert("RGBA")
            upright = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
        return np.array(upright.convert("RGB"))
    except InputError:
        raise
    except DECODING_ERRORS as error:
        raise InputError(f"{name}: cannot be decoded ({error}); check that the file is whole") from error


def _deep_grey_to_rgb(image: Image.Image, name: str) -> np.ndarray:
    grey = np.asarray(image)
    if grey.dtype.kind == "f" or grey.min() < 0 or grey.max() > 65535:
        raise InputError(
            f"{name}: has {image.mode} pixels outside 16-bit grey; scale it to 8 or 16 bits per channel first"
        )
    # 65535 / 255 = 257 exactly.
    narrow = ((grey.astype(np.uint32) + 128) // 257).astype(np.uint8)
    return np.repeat(narrow[:, :, None], 3, axis=2)


def resize_short_side(image: np.ndarray, short_side: int | None) -> np.ndarray:
    """uint8 RGB (H, W, 3) with its shorter side resized to `short_side` pixels, bilinear as Pillow does it.

    None leaves the image as it is.

    Raises:
        InputError: `short_side` is less than 1 or more than `LONGEST_SIDE`.
    """
    check_short_side(short_side)
    height, width = image.shape[:2]
    size = (height, width) if short_side is None else short_side_size(height, width, short_side)
    if size == (height, width):
        return image
    return np.array(Image.fromarray(image).resize((size[1], size[0]), Image.Resampling.BILINEAR))


def short_side_size(height: int, width: int, short_side: int, longest: int = LONGEST_SIDE) -> tuple[int, int]:
    """Height and width in pixels after detectron2's ResizeShortestEdge, at least 1.

    The shorter side becomes `short_side` unless the longer one would then pass `longest`, which it becomes
    instead; sizes round half up.
    """
    scale = short_side / min(height, width)
    new_height, new_width = scale * height, scale * width
    if max(new_height, new_width) > longest:
        scale = longest / max(new_height, new_width)
        new_height, new_width = scale * new_height, scale * new_width
    return max(1, int(new_height + 0.5)), max(1, int(new_width + 0.5))


def check_short_side(short_side: int | None) -> None:
    """Raise InputError unless `short_side` is None or 1 to `LONGEST_SIDE` pixels."""
    if short_side is not None and not 1 <= short_side <= LONGEST_SIDE:
        raise InputError(
            f"short_side: {short_side} pixels, expected 1 to {LONGEST_SIDE}, or None for no resize"
        )
