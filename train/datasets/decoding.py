"""Whatever goes wrong while a file is decoded, as one line about that file."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ...errors import InputError


@contextmanager
def decoding(path: Path) -> Iterator[None]:
    """Turn a decoder's error on the file at `path` into one that names it.

    Raises:
        InputError: the block raised an error; InputErrors pass as they are.
    """
    try:
        yield
    except InputError:
        raise
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file; restore it") from error
    except Exception as error:
        # On broken content SciPy raises nearly anything, such as bare Exceptions and ZeroDivisionErrors.
        reason = str(error) or type(error).__name__
        raise InputError(f"{path}: cannot be read ({reason}); check that the file is whole") from error
