"""What several test files share: sed-tiny's checkpoint and bundle, sed-b filled with known weights."""

from pathlib import Path

import pytest
import torch

from sed_trt.benchmarks.known_weights import write_known_checkpoint
from sed_trt.bundle import STAGES
from sed_trt.export import export_bundle
from sed_trt.model import SED
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


def exported(checkpoint: Path, folders: pytest.TempPathFactory, precision: str) -> Path:
    """The bundle of a checkpoint in a precision, in a new folder."""
    folder = folders.mktemp("bundles") / f"{checkpoint.stem}-{precision}"
    export_bundle(checkpoint, folder, precision=precision)
    return folder


@pytest.fixture(scope="session")
def tiny_bundle(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """sed-tiny exported."""
    return exported(tiny_checkpoint, tmp_path_factory, "fp32")


@pytest.fixture(scope="session")
def tiny_bundle_fp16(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """sed-tiny exported in FP16."""
    return exported(tiny_checkpoint, tmp_path_factory, "fp16")


@pytest.fixture(scope="session")
def tiny_bundle_bf16(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """sed-tiny exported in BF16."""
    return exported(tiny_checkpoint, tmp_path_factory, "bf16")


@pytest.fixture(scope="session")
def tiny_bundle_int8(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """sed-tiny exported with 8-bit products."""
    return exported(tiny_checkpoint, tmp_path_factory, "int8")


@pytest.fixture(scope="session")
def base_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """sed-b with the weights of `fill`, in the published format."""
    return write_known_checkpoint(tmp_path_factory.mktemp("checkpoints") / "sed-b.pth")


@pytest.fixture(scope="session")
def base_model(base_checkpoint: Path) -> SED:
    """sed-b with the weights of `fill`, in PyTorch."""
    return SED.from_checkpoint(base_checkpoint)


@pytest.fixture(scope="session")
def base_bundle(base_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """sed-b, filled with known weights, exported."""
    folder = tmp_path_factory.mktemp("bundles") / "base"
    checks = export_bundle(base_checkpoint, folder)
    assert {check.stage for check in checks} == set(STAGES)
    return folder


@pytest.fixture(scope="session")
def base_bundle_fp16(base_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """sed-b, filled with known weights, exported in FP16."""
    return exported(base_checkpoint, tmp_path_factory, "fp16")


@pytest.fixture(scope="session")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small set of own data, which is not to be changed."""
    return write_own(tmp_path_factory.mktemp("data") / "own")


@pytest.fixture
def generator() -> torch.Generator:
    """Random numbers that are the same in every run."""
    return torch.Generator().manual_seed(0)
