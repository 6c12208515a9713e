"""Where a measurement was taken: machine, libraries, commit."""

import os
from pathlib import Path
from typing import Any

from .command_output import output_of
from .cores import usable_cores
from .gpu_check_machine import cpu_name
from .results_file import version

_PACKAGES = ("numpy", "torch", "onnxruntime", "onnxruntime-gpu", "tensorrt", "tensorrt-rtx", "pycuda")

# What the measurements themselves write.
_MADE = (":!benchmarks/results", ":!docs", ":!README.md")


def setting() -> dict[str, Any]:
    """Processor, GPU with its driver, versions, commit, and how busy the machine is at this moment."""
    gpu = output_of(["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"])
    name, driver, memory = [part.strip() for part in gpu.splitlines()[0].split(",")] if gpu else [None] * 3
    return {
        "cpu": cpu_name(),
        "cpu_cores": usable_cores(),
        "gpu": name,
        "driver": driver,
        "gpu_memory": memory,
        "versions": {package: version(package) for package in _PACKAGES},
        "commit": commit(),
        # Others' work makes times longer, and ratios of alternating runs less certain.
        "load_average": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
    }


def commit() -> str | None:
    """The checkout's commit, with "+" where files differ from it; None outside a checkout."""
    folder = str(Path(__file__).resolve().parents[1])
    head = output_of(["git", "-C", folder, "rev-parse", "--short=12", "HEAD"])
    if not head:
        return None
    changed = output_of(
        ["git", "-C", folder, "status", "--porcelain", "--untracked-files=no", "--", ".", *_MADE]
    )
    return head + ("+" if changed else "")
