"""The device session alone, without any engine: copies, threads, out of memory, close, exit without closing.

python -m sed_trt.benchmarks.device_check [onnxruntime]

The GPU is reached through the installed device package or, with "onnxruntime", through the CUDA runtime that
ONNX Runtime uses.
"""

import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from ..engines.device.cuda import open_device
from ..engines.device.protocol import Device
from ..engines.device.session import DeviceSession
from ..engines.ort.cuda_libraries import load_cuda_libraries
from ..engines.ort.cudart import CudaRuntimeDevice
from ..errors import InputError

THREADS = 4
ROUND_TRIPS = 32
PARTS = 4
COPY_BYTES = 2**26
TOO_MANY_BYTES = 2**60


def check_session(device: Device) -> dict[str, float | str]:
    """Use a device as the stages of a bundle do, and close it.

    Returns:
        `upload_ms` and `download_ms` of `COPY_BYTES`, and `out_of_memory`, the message of a refused
        allocation.

    Raises:
        RuntimeError: an array came back changed, or too much memory was not refused.
        InputError: the device has too little memory for the check itself.
    """
    session = DeviceSession(device)
    large = np.arange(COPY_BYTES, dtype=np.uint8)
    # Once before the clock runs, so that the buffers are there.
    _round_trip(session, [large])
    times = _round_trip(session, [large])
    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(lambda seed: _round_trip(session, _random_parts(seed)), range(ROUND_TRIPS)))
    try:
        with session.work("the check") as work:
            work.scratch(TOO_MANY_BYTES)
    except InputError as error:
        message = str(error)
    else:
        raise RuntimeError(f"{TOO_MANY_BYTES} bytes were not refused")
    # A refused allocation must leave the session usable.
    _round_trip(session, _random_parts(ROUND_TRIPS))
    session.close()
    return {**times, "out_of_memory": message}


def leave_open(device: Device) -> DeviceSession:
    """A session with memory and finished work, which is not closed: the interpreter must end all the same."""
    session = DeviceSession(device)
    for seed in range(PARTS):
        _round_trip(session, _random_parts(seed))
    return session


def _random_parts(seed: int) -> list[np.ndarray]:
    random = np.random.default_rng(seed)
    return [random.random((random.integers(1, 9), 33), dtype=np.float32) for _ in range(PARTS)]


def _round_trip(session: DeviceSession, parts: list[np.ndarray]) -> dict[str, float]:
    """Upload arrays, stack them on the device and download the stack; returns milliseconds of the copies."""
    started = time.perf_counter()
    stacked = session.stack([session.upload(part) for part in parts])
    uploaded = time.perf_counter()
    with session.work("the check") as work:
        download = work.download(stacked)
    received = session.received(work, download)
    ended = time.perf_counter()
    if not np.array_equal(received, np.concatenate(parts)):
        raise RuntimeError("an array came back from the device changed")
    return {"upload_ms": 1000 * (uploaded - started), "download_ms": 1000 * (ended - uploaded)}


def _runtime_device() -> Device:
    """The device through the CUDA runtime, as ONNX Runtime's engines use it."""
    return CudaRuntimeDevice(load_cuda_libraries())


if __name__ == "__main__":
    try:
        open_checked = _runtime_device if sys.argv[1:] == ["onnxruntime"] else open_device
        print(json.dumps(check_session(open_checked())))
        # Referred to until the interpreter ends.
        left_open = leave_open(open_checked())
    except InputError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(2)
