"""Packages that only some sets need, imported when one of them is read."""

import importlib
from types import ModuleType

from ...errors import InputError


def reader_package(module: str, package: str) -> ModuleType:
    """The module, from the package that brings it.

    Raises:
        InputError: the package is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise InputError(
            f"the package {package!r} is not installed, which reads this data set; in sed-trt's folder, "
            "pip install -e '.[train]'"
        ) from error
