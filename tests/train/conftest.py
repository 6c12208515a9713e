"""What the tests of training share: one thread, a small data set, and a network to start from."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from sed_trt.model import SED, preset_named
from sed_trt.model.checkpoint import save
from sed_trt.tests.fakes.training_data import write_own_data


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Compute with as many threads as the processes that are started here do: sums depend on it."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small own data set of six images, which is not to be changed."""
    return write_own_data(tmp_path_factory.mktemp("training") / "data")


@pytest.fixture(scope="session")
def tiny() -> SED:
    """sed-tiny with random weights, which is not to be changed."""
    with torch.random.fork_rng():
        torch.manual_seed(5)
        return SED(preset_named("sed-tiny"))


@pytest.fixture(scope="session")
def start_weights(tiny: SED, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint of `tiny`."""
    path = tmp_path_factory.mktemp("training") / "start.safetensors"
    save(tiny, path)
    return path
