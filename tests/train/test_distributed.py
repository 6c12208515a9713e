"""Runs of several processes: which are refused, and what is printed of a lost one or of short memory."""

import os
import shutil
import signal
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from sed_trt.errors import InputError
from sed_trt.tests.fakes.training_data import options_of, small, start
from sed_trt.train.config import TrainConfig
from sed_trt.train.distributed import check_processes, one_line_errors
from sed_trt.train.samples import CategorySampler, TrainingSamples, micro_batch, open_training_data


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
        one_line_errors(small("x", batch=4, accumulate=2, categories=None)),
    ):
        torch.empty(2**60)


def test_a_reader_that_the_system_ended_is_named() -> None:
    message = r"^workers is 1: the system ended one that read samples, .*lower workers"
    with pytest.raises(InputError, match=message), one_line_errors(small("x", workers=1)):
        list(DataLoader(Deadly(), num_workers=1))


def test_a_lost_connection_takes_one_line() -> None:
    message = r"^the connection to another process of the run broke \(.* closed by peer .*\); if one ended"
    gloo = (
        "[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:1"
    )
    with pytest.raises(InputError, match=message), one_line_errors(small("x")):
        raise RuntimeError(gloo)
    with pytest.raises(InputError, match="broke"), one_line_errors(small("x")):
        raise torch.distributed.DistBackendError("NCCL error. Connection closed by peer (x)")


def test_other_errors_stay() -> None:
    with (
        pytest.raises(RuntimeError, match=r"cannot be multiplied|size mismatch"),
        one_line_errors(small("x")),
    ):
        torch.ones(2, 3) @ torch.ones(2, 3)


def test_processes_that_do_not_fit_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    config = small("x", batch=6, accumulate=2)
    check_processes(config, None)
    found = torch.cuda.device_count()
    with pytest.raises(InputError, match=f"--gpus {found + 1}: this machine has {found} GPUs"):
        check_processes(config, found + 1)
    with pytest.raises(InputError, match="fp16: needs a GPU; choose no or bf16"):
        check_processes(small("x", mixed_precision="fp16"), 0)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(
        InputError, match="batch is 6; it must be a multiple of processes x accumulate, 2 x 2"
    ):
        check_processes(config, 0)


def errors_of_two_processes(config: TrainConfig, folder: Path) -> list[str]:
    """The error lines of a run of two processes that must fail, without those of the launcher."""
    child = start([*options_of(config, folder / "config.yaml"), "-o", str(folder / "run")], processes=2)
    _, errors = child.communicate()
    assert child.returncode
    assert "cli/main.py" not in errors
    return [line for line in errors.splitlines() if line.startswith("sed-trt: error: ")]


def test_an_error_of_all_processes_is_printed_once(tmp_path: Path, data: Path) -> None:
    (line,) = errors_of_two_processes(small(data, init="nothing.pt", batch=4), tmp_path)
    assert line.startswith("sed-trt: error: --init nothing.pt: neither a file nor weights for sed-tiny")


def test_an_error_of_one_process_is_printed_by_it(tmp_path: Path, data: Path) -> None:
    config = small(shutil.copytree(data, tmp_path / "data"), batch=4)
    dataset, names = open_training_data(config)
    samples = TrainingSamples(dataset, CategorySampler(names, config.categories, config.seed), config)
    broken = Path(samples.identity(micro_batch(config, step=0, rank=1, processes=2, number=0)[0]))
    broken.write_bytes(b"no image")
    first, *others = errors_of_two_processes(config, tmp_path)
    assert first.startswith(f"sed-trt: error: {broken}: is not an image")
    # The connection of the other one may break before the launcher ends it.
    assert len(others) <= 1 and all("connection to another process" in line for line in others)
