"""What several test files share: sed-tiny's checkpoint and bundle, sed-b filled with known weights."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from filelock import FileLock

from sed_trt.benchmarks.known_weights import write_known_checkpoint
from sed_trt.export import export_bundle
from sed_trt.model import SED
from sed_trt.stages import BY_NAME
from sed_trt.tests.fakes.own_data import write_own
from sed_trt.tests.paths import ROOT

TINY = ROOT / "checkpoints" / "sed-tiny.safetensors"


@pytest.fixture(autouse=True)
def private_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep every test's cached embeddings to itself."""
    monkeypatch.setenv("SED_TRT_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="session")
def tiny_checkpoint() -> Path:
    """The trained sed-tiny of the repository."""
    return TINY


@pytest.fixture(scope="session")
def tiny_model(tiny_checkpoint: Path) -> SED:
    """sed-tiny in PyTorch."""
    return SED.from_checkpoint(tiny_checkpoint)


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all processes of one test run share."""
    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "shared"
    folder.mkdir(exist_ok=True)
    return folder


def made_once(path: Path, make: Callable[[Path], object]) -> Path:
    """`path`, made by `make(path)` in the first process that wants it; the others wait."""
    done = path.with_name(f".{path.name}.done")
    with FileLock(path.with_name(f".{path.name}.lock")):
        if not done.exists():
            make(path)
            done.touch()
    return path


def exported(checkpoint: Path, folder: Path, precision: str) -> Path:
    """The bundle of a checkpoint in a precision."""

    def export(path: Path) -> None:
        checks = export_bundle(checkpoint, path, precision=precision)
        assert {check.stage for check in checks} == set(BY_NAME)

    return made_once(folder / f"{checkpoint.stem}-{precision}", export)


@pytest.fixture(scope="session")
def tiny_bundle(tiny_checkpoint: Path, shared_folder: Path) -> Path:
    """sed-tiny exported."""
    return exported(tiny_checkpoint, shared_folder, "fp32")


@pytest.fixture(scope="session")
def tiny_bundle_fp16(tiny_checkpoint: Path, shared_folder: Path) -> Path:
    """sed-tiny exported in FP16."""
    return exported(tiny_checkpoint, shared_folder, "fp16")


@pytest.fixture(scope="session")
def tiny_bundle_bf16(tiny_checkpoint: Path, shared_folder: Path) -> Path:
    """sed-tiny exported in BF16."""
    return exported(tiny_checkpoint, shared_folder, "bf16")


@pytest.fixture(scope="session")
def tiny_bundle_int8(tiny_checkpoint: Path, shared_folder: Path) -> Path:
    """sed-tiny exported with 8-bit products."""
    return exported(tiny_checkpoint, shared_folder, "int8")


@pytest.fixture(scope="session")
def base_checkpoint(shared_folder: Path) -> Path:
    """sed-b with the known weights, in the published format."""
    return made_once(shared_folder / "sed-b.pth", write_known_checkpoint)


@pytest.fixture(scope="session")
def base_model(base_checkpoint: Path) -> SED:
    """sed-b with the known weights, in PyTorch."""
    return SED.from_checkpoint(base_checkpoint)


@pytest.fixture(scope="session")
def base_bundle(base_checkpoint: Path, shared_folder: Path) -> Path:
    """sed-b, filled with known weights, exported."""
    return exported(base_checkpoint, shared_folder, "fp32")


@pytest.fixture(scope="session")
def base_bundle_fp16(base_checkpoint: Path, shared_folder: Path) -> Path:
    """sed-b, filled with known weights, exported in FP16."""
    return exported(base_checkpoint, shared_folder, "fp16")


@pytest.fixture(scope="session")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small set of own data, which is not to be changed."""
    return write_own(tmp_path_factory.mktemp("data") / "own")


@pytest.fixture
def generator() -> torch.Generator:
    """Random numbers that are the same in every run."""
    return torch.Generator().manual_seed(0)
