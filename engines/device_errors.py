"""Errors that concern the device's memory, and the host's for copies to and from it."""

from ..errors import InputError


def out_of_memory(doing: str, asked: int | None, free: int | None) -> InputError:
    """The error of a GPU whose memory is too small: what for, bytes asked for and free, and the way out."""
    wanted = "more memory" if asked is None else _mebibytes(asked)
    left = "" if free is None else f", {_mebibytes(free)} free"
    return InputError(
        f"{doing}: the GPU's memory is too small ({wanted} asked for{left}); lower the number of categories "
        "that are kept (--rejection budget:N), --batch or --short-side, build with a lower --max-categories, "
        "or end other programs on the GPU"
    )


def out_of_pinned_memory(doing: str, asked: int) -> InputError:
    """The error of a host that cannot set aside memory for the GPU to copy: what for, and bytes asked for."""
    return InputError(
        f"{doing}: the host's memory for copies to and from the GPU is too small ({_mebibytes(asked)} asked "
        "for); lower --batch or --short-side, or end other programs"
    )


def _mebibytes(size: int) -> str:
    return f"{size / 2**20:,.1f} MiB"
