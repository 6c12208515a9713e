"""A machine with a GPU, TensorRT and a bundle whose engines are built, and images and vocabularies for it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sed_trt.bundle import Bundle
from sed_trt.engines.device.gpu import Gpu
from sed_trt.engines.profiles import Limits, stage_profiles
from sed_trt.engines.store import BuiltEngines, BuiltStage, GraphRecord, NetworkSummary, PlanRecord
from sed_trt.engines.trt import engines as module
from sed_trt.engines.trt.engines import TensorRTEngines
from sed_trt.engines.trt.library import Library
from sed_trt.runtime import KeepAll, Result, Vocabulary
from sed_trt.runtime.pipeline import encode, finish, prepare
from sed_trt.runtime.rejection import Rejection
from sed_trt.tests.fakes.device import FakeDevice
from sed_trt.tests.fakes.manifest import fake_manifest
from sed_trt.tests.fakes.tensorrt import fake_tensorrt

LIMITS = Limits(max_categories=200, max_batch=4, max_side=512)


@dataclass
class Machine:
    """A machine with a GPU, TensorRT and a bundle whose engines are built."""

    device: FakeDevice
    library: Any
    folder: Path
    plans: dict[str, bytes]

    @property
    def built(self) -> Path:
        """The folder of the built engines."""
        return self.folder / "engines" / "built"

    def engines(self, backend: str = "tensorrt", cuda_graphs: bool = False) -> TensorRTEngines:
        """Its engines."""
        bundle = Bundle(self.folder, fake_manifest())
        return TensorRTEngines(bundle, backend, "asked for", lambda captures: self.device, cuda_graphs)


def install_machine(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """A fresh machine with its bundle in `folder`."""
    device = FakeDevice()
    machine = Machine(device, fake_tensorrt(device=device), folder, {})
    manifest = fake_manifest()
    stages = {
        name: BuiltStage(
            name,
            PlanRecord(f"{name}.engine", "", 0),
            GraphRecord(""),
            profiles,
            manifest.stages[name].inputs,
            manifest.stages[name].outputs,
            NetworkSummary(),
            0.0,
        )
        for name, profiles in stage_profiles(manifest, LIMITS).items()
    }

    def find_built(bundle: Bundle, backend: str, gpu: Gpu) -> BuiltEngines:
        machine.built.mkdir(parents=True, exist_ok=True)
        return BuiltEngines(machine.built, backend, "1", "sm86", LIMITS, stages)

    monkeypatch.setattr(module, "find_gpu", lambda: Gpu("Fake", (8, 6), "13.0", 2**30))
    monkeypatch.setattr(module, "check_driver", lambda backend, gpu: None)
    monkeypatch.setattr(module, "load_library", lambda backend: Library(backend, machine.library, "1"))
    monkeypatch.setattr(module, "find_built", find_built)
    monkeypatch.setattr(module, "read_plan", lambda built, stage: machine.plans.get(stage, stage.encode()))
    return machine


def segment(
    engines: Any, image: np.ndarray, vocabulary: Vocabulary, rejection: Rejection | None = None
) -> Result:
    """Segment an image by the four steps of the runtime."""
    (encoded,) = encode(engines, [prepare(engines, image, None)])
    return finish(encoded, vocabulary, rejection or KeepAll())


def many(count: int) -> Vocabulary:
    """A vocabulary of random colours."""
    text = np.random.default_rng(count).random((count, 1, 3)).astype(np.float32)
    return Vocabulary(tuple(f"colour {number}" for number in range(count)), text)


def noise(seed: int, side: int = 40) -> np.ndarray:
    """A random image, uint8 (side, side + 5, 3)."""
    return np.random.default_rng(seed).integers(0, 256, (side, side + 5, 3), dtype=np.uint8)
