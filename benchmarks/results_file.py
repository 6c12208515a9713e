"""Results files: what was measured, on what, with which versions."""

import json
import platform
from importlib import metadata
from typing import Any

from .. import __version__


def results_text(kind: str, content: dict[str, Any]) -> str:
    """The text of a results file: `content` below its kind and what it was measured with."""
    heading = {
        "kind": kind,
        "sed_trt": __version__,
        "machine": f"{platform.system()} {platform.machine()}",
        "versions": {name: version(name) for name in ("numpy", "pillow", "torch", "onnxruntime")},
    }
    return json.dumps(heading | content, indent=1) + "\n"


def version(package: str) -> str | None:
    """Its installed version; None where it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
