"""What a training says where the machine has too little memory, and what it leaves behind."""

import os
import signal

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from sed_trt.errors import InputError
from sed_trt.tests.fakes.training_data import small
from sed_trt.train.distributed import enough_memory


class Deadly(Dataset[int]):
    """Kills the process that reads it, as the system does where memory is short."""

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> int:
        os.kill(os.getpid(), signal.SIGKILL)
        return index


def test_want_of_memory_names_the_settings() -> None:
    message = r"^out of memory with batch 4, accumulate 2, crop 32, categories all; raise --accumulate, "
    with (
        pytest.raises(InputError, match=message),
        enough_memory(small("x", batch=4, accumulate=2, categories=None)),
    ):
        torch.empty(2**60)


def test_a_reader_that_the_system_ended_is_named() -> None:
    message = r"^workers is 1: the system ended one that read samples, .*lower workers"
    with pytest.raises(InputError, match=message), enough_memory(small("x", workers=1)):
        list(DataLoader(Deadly(), num_workers=1))


def test_other_errors_stay() -> None:
    with pytest.raises(RuntimeError, match=r"cannot be multiplied|size mismatch"), enough_memory(small("x")):
        torch.ones(2, 3) @ torch.ones(2, 3)
