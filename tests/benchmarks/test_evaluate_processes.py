"""Evaluations in several processes, in shares, and interrupted ones, with sources that need no network."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest

from sed_trt.benchmarks.accuracy.counts import SetCounts
from sed_trt.benchmarks.accuracy.labelling import GPUS_VARIABLE, Setup, count_sets, visible_gpus
from sed_trt.benchmarks.accuracy.shards import ChosenImages, ProgressFolder
from sed_trt.benchmarks.results_file import usable_cores
from sed_trt.errors import InputError
from sed_trt.tests.fakes.given_set import (
    STUCK_FROM,
    DeadlySet,
    GivenSet,
    broken,
    no_report,
    refuse,
    same,
    stand_in_setup,
    stuck_values,
    values,
)
from sed_trt.train.datasets import Dataset

LABELS = [np.full((3, 4), index % 3, np.int32) for index in range(20)]


def counted(setup: Setup, dataset: Dataset, chosen: Sequence[int] | None = None) -> SetCounts:
    """The counts of a set, or of some of its images."""
    images = ChosenImages(dataset, range(len(dataset)) if chosen is None else chosen)
    (counts,) = count_sets(setup, setup.open(ExitStack()), [images], no_report)
    return counts


def test_processes_and_shards_count_the_same(tmp_path: Path) -> None:
    dataset = GivenSet(LABELS, 4)
    whole = counted(stand_in_setup(tmp_path), dataset)
    assert whole.done.all() and whole.totals[0][0].images == 20
    assert same(counted(stand_in_setup(tmp_path, processes=2), dataset), whole)
    progress = ProgressFolder(tmp_path / "kept", pytest.fail)
    for shard, processes in (((3, 3), 1), ((1, 3), 2)):
        part = counted(stand_in_setup(tmp_path, progress=progress, shard=shard, processes=processes), dataset)
        assert part.done[shard[0] - 1 :: 3].all()
    # The second of three is missing; the images of the others are not labelled again.
    assert part.done.tolist() == [position % 3 != 1 for position in range(20)]
    labelled: list[int] = []

    def watched(image: np.ndarray) -> np.ndarray:
        labelled.append(int(image[0, 0, 0]))
        return values(image)

    assert same(counted(stand_in_setup(tmp_path, watched, progress=progress), dataset), whole)
    assert labelled == list(range(1, 20, 3))
    progress.remove()
    assert not (tmp_path / "kept").exists()


def test_each_process_has_its_gpu_and_its_part_of_the_cores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(GPUS_VARIABLE, "3,GPU-5d")
    notes = tmp_path / "notes"
    notes.mkdir()
    counted(stand_in_setup(tmp_path, processes=2, notes=notes), GivenSet(LABELS, 4))
    threads = max(1, usable_cores() // 2)
    (notes / str(os.getpid())).unlink()
    assert sorted(file.read_text() for file in notes.iterdir()) == [f"3 {threads}", f"GPU-5d {threads}"]


def test_a_source_that_runs_elsewhere_in_a_process_is_refused(tmp_path: Path) -> None:
    setup = stand_in_setup(tmp_path, processes=2, elsewhere="tensorrt")
    with pytest.raises(
        InputError, match=r"0\.pth runs on tensorrt in a process, but on nothing in the first"
    ):
        counted(setup, GivenSet(LABELS, 4))


def test_a_killed_process_is_reported_and_the_others_work_is_kept(tmp_path: Path) -> None:
    progress = ProgressFolder(tmp_path / "kept", pytest.fail)
    setup = stand_in_setup(tmp_path, processes=2, progress=progress)
    with pytest.raises(
        InputError, match=r"^--processes: one of 2 ended before its work did; .*: take fewer$"
    ):
        counted(setup, DeadlySet(LABELS, 4, deadly=18))
    # Before the 18th the process has counted the nine other even ones.
    chosen = ChosenImages(GivenSet(LABELS, 4), range(20))
    with progress.begin(setup.identity(setup.open(ExitStack())), [chosen]) as (kept,):
        assert kept.load(1, 1).done[:18:2].all()
    assert same(counted(setup, GivenSet(LABELS, 4)), counted(stand_in_setup(tmp_path), GivenSet(LABELS, 4)))


def test_errors_in_a_process_reach_the_parent(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    dataset = GivenSet(LABELS, 4)
    with pytest.raises(InputError, match=r"^image 5: GPU: out of memory$"):
        counted(stand_in_setup(tmp_path, refuse, processes=2), dataset)
    assert capfd.readouterr().err == ""
    with pytest.raises(InputError, match="unless an error above says why"):
        counted(stand_in_setup(tmp_path, broken, processes=2), dataset)
    assert "ZeroDivisionError: a mistake in the program" in capfd.readouterr().err


# Counts as the command line does, but a set that needs no files.
PROGRAM = """
import signal, sys
from pathlib import Path
from sed_trt.benchmarks.accuracy.shards import ProgressFolder
from sed_trt.tests.benchmarks.test_evaluate_processes import LABELS, counted
from sed_trt.tests.fakes.given_set import GivenSet, stand_in_setup, stuck_values
folder, processes = Path(sys.argv[1]), int(sys.argv[2])
# A process in the background may have been started so that it ignores Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)
progress = ProgressFolder(folder / "kept", print)
try:
    counted(stand_in_setup(folder, stuck_values, processes=processes, progress=progress), GivenSet(LABELS, 4))
except KeyboardInterrupt:
    sys.exit(130)
"""


@contextmanager
def running(folder: Path, processes: int, stuck_from: int) -> Iterator[subprocess.Popen[str]]:
    """The program in a group of processes of its own; it comes to the image `stuck_from` and stays there."""
    command = [sys.executable, "-c", PROGRAM, str(folder), str(processes)]
    environment = os.environ | {STUCK_FROM: str(stuck_from)}
    with subprocess.Popen(
        command, env=environment, start_new_session=True, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            with suppress(OSError):
                os.killpg(process.pid, signal.SIGKILL)


def wait_until(condition: Callable[[], bool], process: subprocess.Popen[str] | None = None) -> None:
    """Return when the condition holds; a process must not end meanwhile."""
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        assert process is None or process.poll() is None
        time.sleep(0.01)


def records(folder: Path) -> int:
    """Whole records in the folder of a progress."""
    return sum(file.read_bytes().count(b"\n") for file in (folder / "kept").glob("*.jsonl"))


def running_in_group(group: int) -> list[str]:
    """Processes of a group, without those that have ended and wait to be reaped."""
    found = []
    for file in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            # After the name in brackets: state, parent, group.
            state, _, its_group = file.read_text().rpartition(")")[2].split()[:3]
            if int(its_group) == group and state not in "ZX":
                found.append(file.parent.name)
    return found


def cannot_be_interrupted(process: str) -> bool:
    """Whether a process has ended, or blocks or ignores SIGINT."""
    try:
        status = (Path("/proc") / process / "status").read_text()
    except OSError:
        return True
    masks = [
        int(line.split()[1], 16) for line in status.splitlines() if line.startswith(("SigBlk", "SigIgn"))
    ]
    return any(mask & 1 << (signal.SIGINT - 1) for mask in masks)


linux_only = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


def kill_at(folder: Path, processes: int, stuck_from: int) -> None:
    """Kill the program when it is stuck; its processes must end as well."""
    with running(folder, processes, stuck_from) as process:
        wait_until(lambda: records(folder) == stuck_from, process)
        process.kill()
        wait_until(lambda: not running_in_group(process.pid))


@linux_only
def test_an_evaluation_that_is_killed_again_and_again_comes_to_its_end(tmp_path: Path) -> None:
    for processes, stuck_from in ((2, 5), (1, 7), (3, 13)):
        kill_at(tmp_path, processes, stuck_from)
    progress = ProgressFolder(tmp_path / "kept", pytest.fail)
    setup = stand_in_setup(tmp_path, stuck_values, processes=2, progress=progress)
    assert same(counted(setup, GivenSet(LABELS, 4)), counted(stand_in_setup(tmp_path), GivenSet(LABELS, 4)))
    assert len(list((tmp_path / "kept").glob("*.jsonl"))) == 2 + 1 + 3 + 2
    progress.remove()
    assert not (tmp_path / "kept").exists()


@linux_only
@pytest.mark.parametrize("at_work", [True, False], ids=["working", "importing"])
def test_ctrl_c_ends_all_processes_without_a_word_of_theirs(at_work: bool, tmp_path: Path) -> None:
    stuck_from = 4 if at_work else 0
    with running(tmp_path, 2, stuck_from) as process:
        # The parent, its two processes and Python's tracker of their resources.
        wait_until(lambda: len(running_in_group(process.pid)) >= 4, process)
        children = set(running_in_group(process.pid)) - {str(process.pid)}
        assert all(map(cannot_be_interrupted, children))
        wait_until(lambda: records(tmp_path) == stuck_from, process)
        # A terminal sends it to all of them.
        os.killpg(process.pid, signal.SIGINT)
        assert process.stderr is not None and process.stderr.read() == ""
        assert process.wait() == 130
        wait_until(lambda: not running_in_group(process.pid))
    assert (tmp_path / "kept").exists() == at_work
    assert all(path.suffix == ".jsonl" for path in (tmp_path / "kept").glob("*"))


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
