"""Whatever goes wrong while a file of weights is read, as one line about that file."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import InputError


@contextmanager
def reading(path: Path, fix: str, what: str = "") -> Iterator[None]:
    """Turn a reader's error on the file at `path` into one that names it.

    Args:
        path: of the file.
        fix: what to do about it.
        what: what it cannot be read as, such as " as a checkpoint".

    Raises:
        InputError: the block raised an exception.
    """
    try:
        yield
    except Exception as error:
        # Damaged bytes reach the pickle and zip readers, which check little and raise almost anything.
        reason = str(error).split("\n")[0] or type(error).__name__
        raise InputError(f"{path}: cannot be read{what} ({reason}); {fix}") from error
