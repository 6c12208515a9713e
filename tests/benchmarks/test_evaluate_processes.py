"""What the processes of an evaluation are given, and what is said when one fails."""

from pathlib import Path

import numpy as np
import pytest

from sed_trt.benchmarks.accuracy.count_processes import GPUS_VARIABLE, counted_in_processes, visible_gpus
from sed_trt.benchmarks.accuracy.picture_counter import Setup
from sed_trt.benchmarks.accuracy.predictors import open_source
from sed_trt.benchmarks.results_file import usable_cores
from sed_trt.errors import InputError
from sed_trt.runtime import TopK
from sed_trt.tests.fakes.given_set import DeadlySet, GivenSet, WatchedSet

LABELS = [np.zeros((8, 8), np.int32)] * 2


def counted(source: Path, dataset: GivenSet, runs_on: str) -> list[int]:
    """Positions of the pictures that two processes have counted."""
    with open_source(source) as opened:
        text = opened.embed(dataset.names, None)
    setup = Setup((source,), {"topk:1": TopK(1)}, processes=2)
    pictures = range(len(dataset))
    found = counted_in_processes(setup, [runs_on], [text], dataset, pictures, pictures)
    return sorted(each.position for each in found)


def test_each_process_has_its_gpu_and_its_part_of_the_cores(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # No machine has these; PyTorch falls back to the CPU.
    monkeypatch.setenv(GPUS_VARIABLE, "-1,-2")
    assert counted(tiny_checkpoint, WatchedSet(tmp_path, 2), "PyTorch") == [0, 1]
    threads = max(1, usable_cores() // 2)
    assert sorted(file.read_text() for file in tmp_path.iterdir()) == [f"-1 {threads}", f"-2 {threads}"]


def test_a_source_that_runs_elsewhere_in_a_process_is_refused(tiny_bundle: Path) -> None:
    with pytest.raises(InputError, match=r"runs on onnxruntime in a process, but on tensorrt in the first"):
        counted(tiny_bundle, GivenSet(LABELS, 3), "tensorrt")


def test_a_killed_process_is_told_of(tiny_bundle: Path) -> None:
    with pytest.raises(
        InputError, match=r"^--processes: one of 2 ended before its work did; .*: take fewer$"
    ):
        counted(tiny_bundle, DeadlySet(LABELS, 3), "onnxruntime")


def test_gpus_that_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(GPUS_VARIABLE, "2, GPU-5d")
    assert visible_gpus() == ("2", "GPU-5d")
    monkeypatch.setenv(GPUS_VARIABLE, "")
    assert visible_gpus() == ()


def test_gpus_that_the_driver_lists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(GPUS_VARIABLE, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert visible_gpus() == ()
    program = tmp_path / "nvidia-smi"
    program.write_text(
        "#!/bin/sh\n"
        "echo 'GPU 0: NVIDIA A100 (UUID: GPU-5d)'\n"
        "echo '  MIG 3g.20gb     Device  0: (UUID: MIG-c7)'\n"
        "echo '  MIG 3g.20gb     Device  1: (UUID: MIG-a1)'\n"
        "echo 'GPU 1: NVIDIA A100 (UUID: GPU-7e)'\n"
    )
    program.chmod(0o755)
    assert visible_gpus() == ("0", "1")
