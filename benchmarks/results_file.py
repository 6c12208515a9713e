"""Results files: what was measured, on what, with which versions."""

import json
import os
import platform
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

from .. import __version__
from ..engines.device.cuda import find_gpu
from ..engines.ort.session import library as onnxruntime_library
from ..engines.targets import TENSORRT_BACKENDS
from ..engines.trt.library import load_library
from ..errors import InputError
from .gpu_check_steps import Steps, one_line


def output_of(command: Sequence[str]) -> str:
    """What a command prints; nothing where it fails or is not there."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()


def usable_cores() -> int:
    """The cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


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


_PACKAGES = ("numpy", "onnx", "onnxscript", "open_clip_torch", "timm", "pycuda")


def basics() -> dict[str, Any]:
    """What is known without importing a library that could crash."""
    return {
        "name": cpu_name(),
        "cpu": cpu_name(),
        "cpu_cores": usable_cores(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "gpu": None,
        "gpu_missing": None,
        "nvidia_smi": _nvidia_smi(),
        "torch_cuda": False,
        "versions": {name: version(name) for name in _PACKAGES},
        "versions_missing": {},
    }


def describe_machine(steps: Steps) -> None:
    """Note all of it, library by library."""
    known = basics()
    steps.note(**known)
    parts: tuple[tuple[str, Callable[[dict[str, Any]], str]], ...] = (
        *((backend, _tensorrt(backend)) for backend in TENSORRT_BACKENDS),
        ("onnxruntime", _onnxruntime),
        ("torch", _torch),
    )
    with steps.doing("looking for a GPU"):
        try:
            known["gpu"] = asdict(find_gpu()) | {"found_by": "pycuda"}
        except Exception as error:
            known["gpu_missing"] = one_line(error)
        steps.note(**known)
    for name, describe in parts:
        with steps.doing(f"importing {name}"):
            try:
                known["versions"][name] = describe(known)
            except Exception as error:
                known["versions"][name] = None
                known["versions_missing"][name] = one_line(error)
            steps.note(**known)
    if known["gpu"] is not None:
        known["name"] = known["gpu"]["name"]
    steps.note(**known)


def cpu_name() -> str:
    """The processor's model, or its architecture where the system does not say."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _tensorrt(backend: str) -> Callable[[dict[str, Any]], str]:
    return lambda _known: load_library(backend).version


def _onnxruntime(known: dict[str, Any]) -> str:
    library = onnxruntime_library()
    known["onnxruntime_providers"] = library.get_available_providers()
    return str(library.__version__)


def _torch(known: dict[str, Any]) -> str:
    import torch

    known["torch_cuda"] = torch.cuda.is_available()
    known["torch_cuda_version"] = torch.version.cuda
    if known["torch_cuda"] and known["gpu"] is None:
        device = torch.cuda.get_device_properties(0)
        known["gpu"] = {
            "name": device.name,
            "capability": (device.major, device.minor),
            "driver": None,
            "memory": device.total_memory,
            "found_by": "torch",
        }
    return str(torch.__version__)


def _nvidia_smi() -> str | None:
    """Name, driver's version and memory of each GPU, as nvidia-smi says."""
    command = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


_RECORDED_PACKAGES = (
    "numpy",
    "torch",
    "onnxruntime",
    "onnxruntime-gpu",
    "tensorrt",
    "tensorrt-rtx",
    "pycuda",
)

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
        "versions": {package: version(package) for package in _RECORDED_PACKAGES},
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
