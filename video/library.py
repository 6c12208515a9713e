"""PyAV, FFmpeg for Python, which the extra `video` brings."""

from types import ModuleType

from ..errors import InputError


def library() -> ModuleType:
    """The package `av`.

    Raises:
        InputError: it is not installed, or does not load.
    """
    try:
        import av
    except ImportError as error:
        raise InputError(
            f"PyAV, which reads and writes videos, does not load ({error}); "
            "in sed-trt's folder, pip install -e '.[video]'"
        ) from error
    return av
