"""Write a file whole or not at all."""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import InputError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary name beside `path` to write to, and move it to `path` when the block ends well.

    When the block raises, `path` is left as it was and the temporary file is removed.

    Raises:
        InputError: the folder or file cannot be written (permissions, full disk, missing folder).
    """
    # The suffix is kept because writers such as numpy and Pillow choose the format by it.
    temporary = path.parent / f".{uuid.uuid4().hex}{path.suffix}"
    try:
        yield temporary
        temporary.replace(path)
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError(f"{path}: cannot be written ({reason}); choose a folder you can write to") from error
    finally:
        temporary.unlink(missing_ok=True)
