"""Runs a bundle on ONNX Runtime's CUDA provider over the stub and prints what its stages cost, as JSON.

python -m sed_trt.tests.fakes.cuda_stub.observe BUNDLE FOLDER [--graphs]

FOLDER takes ONNX Runtime's profiles, which say where each node ran; with --graphs there are none. The process
must find the stub and onnxruntime-gpu.
"""

import ctypes
import json
import sys
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from sed_trt.bundle import Bundle
from sed_trt.engines.ort import cuda_device
from sed_trt.engines.ort.cuda import OnnxRuntimeCudaEngines
from sed_trt.engines.ort.session import open_session
from sed_trt.runtime import Budget, KeepAll, Rejection, Vocabulary
from sed_trt.runtime.device_rejection import DeviceRejection
from sed_trt.runtime.pipeline import encode, finish, prepare

COUNTED = (
    "waits",
    "launches",
    "graph_launches",
    "host_to_device",
    "host_to_device_bytes",
    "device_to_host",
    "device_to_host_bytes",
    "device_to_device",
    "device_to_device_bytes",
    "device_bytes",
    "pinned_bytes",
    "plans",
    "cublas_handles",
    "cudnn_handles",
)
CATEGORIES = 11
IMAGE_SHAPE = (60, 70, 3)


class Stub:
    """The counts of the stub that this process has loaded."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL("libcudart.so.13")
        self._library.stub_count.restype = ctypes.c_int64

    def read(self) -> Counter[str]:
        """Every count so far."""
        return Counter({name: self._library.stub_count(name.encode()) for name in COUNTED})

    def since(self, before: Counter[str]) -> dict[str, int]:
        """What was added to the counts, those that stayed left out."""
        now = self.read()
        return {name: now[name] - before[name] for name in COUNTED if now[name] != before[name]}


class Observed:
    """An engine that notes what the stub counts during each of its runs."""

    def __init__(self, engine: Any, stub: Stub, costs: dict[str, list[dict[str, int]]]) -> None:
        self._engine = engine
        self._stub = stub
        self._costs = costs

    def run(self, inputs: Any) -> Any:
        """Run the stage."""
        before = self._stub.read()
        outputs = self._engine.run(inputs)
        self._costs[self._engine.name].append(self._stub.since(before))
        return outputs


class ObservedEngines(OnnxRuntimeCudaEngines):
    """Engines that note what the stub counts."""

    stub: Stub
    costs: dict[str, list[dict[str, int]]]

    def __getitem__(self, stage: str) -> Any:
        """The engine of a stage."""
        return Observed(super().__getitem__(stage), self.stub, self.costs)


def main(bundle_folder: str, folder: str, *flags: str) -> None:
    """Segment images and print the report."""
    sessions: list[Any] = []

    def open_profiled(model: Any, file: Path, *arguments: Any, **options: Any) -> Any:
        options["profile"] = Path(folder) / f"{file.stem}-{len(sessions)}"
        sessions.append(open_session(model, file, *arguments, **options))
        return sessions[-1]

    graphs = "--graphs" in flags
    if not graphs:
        cuda_device.open_session = open_profiled
    bundle = Bundle.open(bundle_folder)
    engines = ObservedEngines(bundle, 1, "asked for", cuda_graphs=graphs)
    stub, costs = Stub(), defaultdict[str, list[dict[str, int]]](list)
    engines.stub, engines.costs = stub, costs
    manifest = bundle.manifest
    engines["text"].run({"tokens": np.zeros((3, manifest.context_length), np.int64)})
    text = np.ones((CATEGORIES, len(manifest.templates), manifest.embed_dim), np.float32)
    vocabulary = Vocabulary(tuple(f"category {number}" for number in range(CATEGORIES)), text)
    image = np.zeros(IMAGE_SHAPE, np.uint8)

    def segment(rejection: Rejection) -> dict[str, int]:
        before = stub.read()
        (encoded,) = encode(engines, [prepare(engines, image, None)])
        finish(encoded, vocabulary, rejection)
        return stub.since(before)

    def encode_batch() -> dict[str, int]:
        before = stub.read()
        encode(engines, [prepare(engines, image, None) for _ in range(3)])
        return stub.since(before)

    # Two buckets, and each twice in turn, once all sessions are there.
    DeviceRejection(engines).warm_up()
    images = [segment(rejection) for rejection in (KeepAll(), Budget(2)) * 3]
    report = {
        "images": images,
        "stages": {stage: runs[-1] for stage, runs in costs.items()},
        "batches": [encode_batch() for _ in range(3)],
        "nodes": _placements(sessions),
    }
    json.dump(report, sys.stdout)


def _placements(sessions: list[Any]) -> dict[str, dict[str, dict[str, int]]]:
    """By stage and provider, how often each operator ran in the sessions' profiles."""
    placements: dict[str, dict[str, dict[str, int]]] = {}
    for session in sessions:
        file = Path(session.end_profiling())
        providers: dict[str, Counter[str]] = defaultdict(Counter)
        for event in json.loads(file.read_text()):
            provider = event.get("args", {}).get("provider")
            if event.get("cat") == "Node" and provider:
                providers[provider][event["args"]["op_name"]] += 1
        stage = file.name.split("-")[0]
        if providers:
            placements[stage] = {name: dict(ops) for name, ops in providers.items()}
    return placements


if __name__ == "__main__":
    main(*sys.argv[1:])
