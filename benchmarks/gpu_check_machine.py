"""What a machine is: its GPU, its CPU, and the libraries that run on them."""

import platform
import subprocess
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..engines.gpu import find_gpu
from ..engines.onnxruntime_engine import library as onnxruntime_library
from ..engines.trt_library import TENSORRT_BACKENDS, load_library
from .cores import usable_cores
from .gpu_check_steps import Steps, one_line
from .results_file import version

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
