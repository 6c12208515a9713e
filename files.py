"""Files: tests of paths that do not raise, reading a file, and writing a file whole or not at all."""

import errno
import os
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .errors import InputError

# The kinds of image files that are looked for in folders.
IMAGE_SUFFIXES = frozenset((".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"))


def exists(path: Path) -> bool:
    """Whether a file or folder is there and can be reached; False for a path that is not valid."""
    return os.path.exists(path)  # noqa: PTH110


def is_file(path: Path) -> bool:
    """Whether a regular file is there and can be reached."""
    return os.path.isfile(path)  # noqa: PTH113


def is_folder(path: Path) -> bool:
    """Whether a folder is there and can be reached."""
    return os.path.isdir(path)  # noqa: PTH112


def resolved(path: Path) -> Path:
    """The absolute path without links, as far as they can be followed."""
    try:
        return Path(os.path.realpath(path))
    except ValueError:
        # The path holds a null byte, so there are no links to follow.
        return Path.cwd() / path


def read_file(path: Path) -> bytes:
    """Content of a regular file.

    Opening a FIFO would wait for a writer, so anything but a regular file is refused.

    Raises:
        OSError: it is not there, is no regular file, or cannot be read.
    """
    if not exists(path):
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
    if not is_file(path):
        raise OSError(errno.EINVAL, "is no regular file", str(path))
    return path.read_bytes()


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary file beside `path` to write to, and move it to `path` when the block ends well.

    When the block raises, `path` is left as it was and the temporary file is removed.

    Raises:
        InputError: the folder or file cannot be written (permissions, full disk, missing folder).
    """
    _check_name(path)
    # The suffix is kept because writers such as numpy and Pillow choose the format by it.
    temporary = path.parent / f".{uuid.uuid4().hex}{path.suffix}"
    try:
        temporary.touch()
        # Writers such as safetensors give their files a mode of their own; this one obeys the umask.
        mode = temporary.stat().st_mode
        yield temporary
        temporary.chmod(mode)
        temporary.replace(path)
    except OSError as error:
        raise _not_writable(path, error.strerror or str(error)) from error
    finally:
        with suppress(OSError):
            temporary.unlink()


def make_folder(folder: Path) -> None:
    """Make a folder unless it is there, and find out before the work whether a file can be made in it.

    Raises:
        InputError: it cannot be made or written (permissions, full disk, a file in its place).
    """
    _check_name(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = "it is a file" if is_file(folder) else error.strerror
        raise InputError(f"{folder}: cannot be made a folder ({reason}); choose another one") from error
    check_writable(folder)


def check_writable(folder: Path) -> None:
    """Find out before the work whether a file can be made in `folder`.

    Raises:
        InputError: it cannot (permissions, full disk, missing folder).
    """
    _check_name(folder)
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise _not_writable(folder, error.strerror or str(error)) from error


def _check_name(path: Path) -> None:
    """Refuse a path with a null byte, for which the system's calls raise ValueError instead of OSError."""
    if "\0" in str(path):
        raise _not_writable(path, "its name holds a null byte")


def _not_writable(path: Path, reason: str) -> InputError:
    return InputError(f"{path}: cannot be written ({reason}); choose a folder you can write to")
