"""Results files: what was measured, on which machine, with which versions."""

import json
import os
import platform
import subprocess
import time
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

from .. import __version__
from ..errors import InputError

_PACKAGES = (
    "numpy",
    "pillow",
    "torch",
    "onnxruntime",
    "onnxruntime-gpu",
    "openvino",
    "tensorrt",
    "tensorrt-rtx",
    "pycuda",
)
# What benchmarks write themselves makes no new version of the code.
_WRITTEN = (":!benchmarks/results", ":!docs", ":!README.md")


def results_text(kind: str, content: dict[str, Any]) -> str:
    """The text of a results file: `content` below its kind, the versions and the system."""
    heading = {
        "kind": kind,
        "sed_trt": __version__,
        "machine": f"{platform.system()} {platform.machine()}",
        "versions": {package: version(package) for package in _PACKAGES},
    }
    return json.dumps(heading | content, indent=1) + "\n"


def read_results(file: Path, kind: str | None = None) -> dict[str, Any]:
    """The content of a results file.

    Args:
        file: to read.
        kind: that the results must be of; None takes any.

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


def setting() -> dict[str, Any]:
    """Processor, GPU with its driver, and commit, for a results file; no library is imported for it."""
    query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    gpus = output_of(query).splitlines()
    name, driver, memory = [part.strip() for part in gpus[0].split(",")] if gpus else [None] * 3
    return {
        "cpu": cpu_name(),
        "cpu_cores": usable_cores(),
        "gpu": name,
        "driver": driver,
        "gpu_memory": memory,
        "commit": commit(),
    }


class CpuTimes(NamedTuple):
    """Processor time at one moment, in seconds since moments of their own.

    Attributes:
        wall: of the clock.
        busy: of all processes, on the cores that this process may run on.
        own: of this process, and of those that it started and waited for.
    """

    wall: float
    busy: float
    own: float

    @classmethod
    def now(cls) -> "CpuTimes | None":
        """Of this moment; None where the system does not tell."""
        try:
            lines = Path("/proc/stat").read_text().splitlines()
        except OSError:
            return None
        cores = {f"cpu{core}" for core in os.sched_getaffinity(0)}
        ticks = 0
        for name, *fields in (line.split() for line in lines):
            if name in cores:
                user, nice, system, _idle, _waiting, interrupts, soft_interrupts, stolen = fields[:8]
                ticks += sum(map(int, (user, nice, system, interrupts, soft_interrupts, stolen)))
        return cls(time.monotonic(), ticks / os.sysconf("SC_CLK_TCK"), sum(os.times()[:4]))

    def other_load(self, later: "CpuTimes") -> float:
        """How many cores other processes kept busy from this moment to a later one, on average."""
        others = (later.busy - self.busy) - (later.own - self.own)
        return max(0.0, others / (later.wall - self.wall))


def other_load_since(start: CpuTimes | None) -> float | None:
    """`CpuTimes.other_load` from a moment until now; None where the system does not tell."""
    now = CpuTimes.now()
    return None if start is None or now is None else start.other_load(now)


def one_line(error: BaseException) -> str:
    """An exception as one line, with its type unless that is our own."""
    return " ".join(f"{type(error).__name__}: {error}".removeprefix("InputError: ").split())


def output_of(command: Sequence[str]) -> str:
    """What a command prints; "" where it fails or is not there."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()


def usable_cores() -> int:
    """The number of cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def version(package: str) -> str | None:
    """Its installed version; None where it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def cpu_name() -> str:
    """The processor's model, or its architecture where the system does not tell."""
    return _cpu_fact("model name") or platform.processor() or platform.machine()


def has_amx_bf16() -> bool:
    """Whether the processor multiplies tiles of BF16 (AMX); False where the system does not tell."""
    return "amx_bf16" in _cpu_fact("flags").split()


def _cpu_fact(name: str) -> str:
    """What Linux says of the first core under this name; "" where there is nothing."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    facts = (line.split(":", 1) for line in lines if ":" in line)
    return next((fact.strip() for key, fact in facts if key.strip() == name), "")


def available_memory() -> int | None:
    """Bytes of memory that can be taken without swapping; None where the system does not tell."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), None)


def commit() -> str | None:
    """The checkout's commit, with "+" where files differ from it; None outside a checkout."""
    folder = str(Path(__file__).resolve().parents[1])
    head = output_of(["git", "-C", folder, "rev-parse", "--short=12", "HEAD"])
    if not head:
        return None
    changed = output_of(
        ["git", "-C", folder, "status", "--porcelain", "--untracked-files=no", "--", ".", *_WRITTEN]
    )
    return head + ("+" if changed else "")
