"""What to install when a command's optional packages are missing."""

from collections.abc import Iterator
from contextlib import contextmanager

from ..errors import InputError


@contextmanager
def needs(extra: str) -> Iterator[None]:
    """Turn a missing package into the advice to install the extra that brings it.

    Two extras bring ONNX Runtime, whichever other one is needed.

    Raises:
        InputError: an import inside the block failed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        wanted = (
            "'.[cpu]', or '.[gpu]' with an NVIDIA GPU" if error.name == "onnxruntime" else f"'.[{extra}]'"
        )
        raise InputError(
            f"the package {error.name!r} is not installed; in sed-trt's folder, pip install -e {wanted}"
        ) from error
