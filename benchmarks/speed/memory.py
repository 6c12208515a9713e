"""A candidate in a process of its own: the time to open it, its first two images, and its peak memory."""

import json
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from ...runtime import Vocabulary
from ..results_file import output_of
from .candidates import BASELINES, OURS, PYTORCH, KeptSets, Subject
from .opening import open_candidate

LIMIT_SECONDS = 1800
_MIB = 2**20


def measure_alone(
    name: str, subject: Subject, vocabulary: Vocabulary, image: np.ndarray, sets: KeptSets
) -> dict[str, Any]:
    """Run a candidate twice on one image in a fresh process.

    Args:
        name: of the candidate.
        subject: see there.
        vocabulary: T categories.
        image: uint8 (H, W, 3).
        sets: what is kept at the three rejection points.

    Returns:
        Milliseconds `open_ms`, `first_ms` and `second_ms`; MiB `opened_mib` and `peak_mib` of host memory,
        and `device_mib`, None where there is no GPU. Or the reason why it failed, as `error`.
    """
    with tempfile.TemporaryDirectory() as folder:
        case = Path(folder) / "case.npz"
        first, second, third = sets
        np.savez(case, text=vocabulary.text, image=image, kept0=first, kept1=second, kept2=third)
        command = [sys.executable, "-m", __spec__.name, name, json.dumps(asdict(subject)), str(case)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_SECONDS, check=False)
        except subprocess.TimeoutExpired:
            return {"error": f"took more than {LIMIT_SECONDS} s"}
    if done.returncode != 0:
        last = done.stderr.strip().splitlines()[-1:] or [""]
        return {"error": f"ended with exit status {done.returncode}: {last[0]}"}
    record: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return record


def peak_mib() -> float:
    """The most host memory that this process ever had, in MiB."""
    # Unlike getrusage's figure it leaves out the peak of the process that started this one.
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))
    except OSError:
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak / _MIB if sys.platform == "darwin" else peak / 1024


def device_memory_used() -> int | None:
    """MiB in use on the first GPU by all processes; None where nvidia-smi does not tell."""
    used = output_of(["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]).split()
    return int(used[0]) if used and used[0].isdigit() else None


def _main(name: str, subject: Subject, case: str) -> dict[str, Any]:
    with np.load(case) as arrays:
        text, image = arrays["text"], arrays["image"]
        sets: KeptSets = (arrays["kept0"], arrays["kept1"], arrays["kept2"])
    vocabulary = Vocabulary(tuple(f"category {number}" for number in range(len(text))), text)
    before = device_memory_used()
    times = [time.perf_counter()]
    run = open_candidate(name, subject).with_vocabulary(vocabulary)
    times.append(time.perf_counter())
    opened = peak_mib()
    for _ in range(2):
        run(image, sets)
        times.append(time.perf_counter())
    after = device_memory_used()
    # PyTorch's allocator does not know what ONNX Runtime and TensorRT allocate.
    if name == OURS or BASELINES[name].library != PYTORCH or after is None or before is None:
        device = None if after is None or before is None else float(after - before)
    else:
        import torch

        device = torch.cuda.max_memory_allocated() / _MIB if torch.cuda.is_initialized() else None
    steps = np.diff(times) * 1000
    return {
        "open_ms": float(steps[0]),
        "first_ms": float(steps[1]),
        "second_ms": float(steps[2]),
        "opened_mib": opened,
        "peak_mib": peak_mib(),
        "device_mib": device,
    }


if __name__ == "__main__":
    print(json.dumps(_main(sys.argv[1], Subject(**json.loads(sys.argv[2])), sys.argv[3])))
