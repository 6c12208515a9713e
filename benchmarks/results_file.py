"""Results files: what was measured, on what, with which versions."""

import json
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

from .. import __version__
from ..errors import InputError


def results_text(kind: str, content: dict[str, Any]) -> str:
    """The text of a results file: `content` below its kind and what it was measured with."""
    heading = {
        "kind": kind,
        "sed_trt": __version__,
        "machine": f"{platform.system()} {platform.machine()}",
        "versions": {name: version(name) for name in ("numpy", "pillow", "torch", "onnxruntime")},
    }
    return json.dumps(heading | content, indent=1) + "\n"


def read_results(file: Path, kind: str | None = None) -> dict[str, Any]:
    """The content of a results file; `kind` is what it must be of, None being any.

    Raises:
        InputError: it cannot be read, is no results file, or is of another kind.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{file}: cannot be read as results ({error}); give a file of sed-trt") from error
    if not isinstance(content, dict) or "kind" not in content:
        raise InputError(f"{file}: holds no results, expected JSON with a kind; give a file of sed-trt")
    if kind is not None and content["kind"] != kind:
        raise InputError(f"{file}: holds results of the kind {content['kind']!r}, expected {kind!r}")
    return content


def version(package: str) -> str | None:
    """Its installed version; None where it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
