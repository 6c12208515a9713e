"""What a path leads to: no, rather than an exception, where it is too long, forbidden or a loop of links."""

import os
from pathlib import Path

# The kinds of image files that are looked for in folders.
IMAGE_SUFFIXES = frozenset((".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"))


def exists(path: Path) -> bool:
    """Whether anything is there and can be reached."""
    return os.path.exists(path)  # noqa: PTH110


def is_file(path: Path) -> bool:
    """Whether a file is there and can be reached."""
    return os.path.isfile(path)  # noqa: PTH113


def is_folder(path: Path) -> bool:
    """Whether a folder is there and can be reached."""
    return os.path.isdir(path)  # noqa: PTH112


def resolved(path: Path) -> Path:
    """The absolute path without links, as far as they can be followed."""
    return Path(os.path.realpath(path))
