"""Which Python packages are installed; none of them is imported."""

import sys
from importlib.util import find_spec

# What reaches a GPU: module and package of each, in the order in which they are taken.
DEVICE_PACKAGES = {"pycuda": "pycuda", "cuda.bindings": "cuda-bindings"}


def is_installed(module: str) -> bool:
    """Whether a module can be found, by its full name; only the packages that it lies in are imported."""
    if module in sys.modules:
        return sys.modules[module] is not None
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        # A package that it would lie in is not installed.
        return False


def device_package() -> str | None:
    """The package that the GPU is reached through, "pycuda" or "cuda-bindings"; None without either."""
    return next((package for module, package in DEVICE_PACKAGES.items() if is_installed(module)), None)
