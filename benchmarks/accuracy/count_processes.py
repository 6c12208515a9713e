"""Pictures labelled in several processes, each with its own sources, threads and, if there are some, GPU."""

import atexit
import multiprocessing
import os
import signal
import tempfile
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from multiprocessing.connection import wait
from multiprocessing.queues import SimpleQueue
from multiprocessing.synchronize import Event
from pathlib import Path

import numpy as np

from ...errors import InputError
from ...train.datasets import Dataset
from ..results_file import output_of, usable_cores
from .counts import PictureCounts
from .picture_counter import PictureCounter, Setup
from .saved_counts import SCRATCH

GPUS_VARIABLE = "CUDA_VISIBLE_DEVICES"


@dataclass(frozen=True, eq=False)
class Job:
    """What a process needs to count pictures; the embeddings, which are large, lie in `texts`."""

    setup: Setup
    runs_on: tuple[str, ...]
    texts: tuple[Path, ...]
    dataset: Dataset
    chosen: tuple[int, ...]
    threads: int
    gpus: tuple[str, ...]


def counted_in_processes(
    setup: Setup,
    runs_on: Sequence[str],
    texts: Sequence[np.ndarray],
    dataset: Dataset,
    chosen: Sequence[int],
    positions: Sequence[int],
) -> Iterator[PictureCounts]:
    """Count the pictures at `positions` in `setup.processes` processes, in the order in which they finish.

    The cores are divided between the processes, and so are the GPUs. `runs_on` is what each source runs on
    here, and `texts` its embeddings of the data set's names.

    Raises:
        InputError: a picture cannot be read or labelled, a source runs on something else in a process, or a
            process was killed.
    """
    context = multiprocessing.get_context("spawn")
    number = min(setup.processes, len(positions))
    place = None if setup.saved is None else setup.saved.folder
    with tempfile.TemporaryDirectory(prefix=SCRATCH, dir=place) as folder:
        files = tuple(Path(folder) / f"text-{index}.npy" for index in range(len(texts)))
        for file, text in zip(files, texts, strict=True):
            np.save(file, text)
        threads = max(1, usable_cores() // number)
        plain = replace(setup, saved=None)
        job = Job(plain, tuple(runs_on), files, dataset, tuple(chosen), threads, visible_gpus())
        ranks = context.SimpleQueue()
        for rank in range(number):
            ranks.put(rank)
        stopped = context.Event()
        pool = ProcessPoolExecutor(number, context, initializer=_prepare, initargs=(job, ranks, stopped))
        try:
            with _interrupt_held():
                futures = [pool.submit(_count, position) for position in positions]
            for future in as_completed(futures):
                counted = future.result()
                if counted is not None:
                    yield counted
        except BrokenProcessPool as error:
            raise InputError(
                f"--processes: one of {number} ended before its work did; unless an error above says why, it "
                "was killed, perhaps for want of memory: take fewer"
            ) from error
        finally:
            # Some pictures are already on their way to the processes and can no longer be cancelled.
            stopped.set()
            pool.shutdown(cancel_futures=True)


def visible_gpus() -> tuple[str, ...]:
    """The GPUs that CUDA_VISIBLE_DEVICES names, or else all that NVIDIA's driver lists."""
    named = os.environ.get(GPUS_VARIABLE)
    if named is not None:
        return tuple(name.strip() for name in named.split(",") if name.strip())
    listed = output_of(["nvidia-smi", "--list-gpus"])
    # Below a GPU stand the parts into which it is divided.
    gpus = [line for line in listed.splitlines() if line.startswith("GPU ")]
    return tuple(map(str, range(len(gpus))))


@contextmanager
def _interrupt_held() -> Iterator[None]:
    """Let Ctrl-C wait; processes started meanwhile never see it, not even while they import."""
    if not hasattr(signal, "pthread_sigmask") or threading.current_thread() is not threading.main_thread():
        yield
        return
    # Processes inherit what this thread blocks; another thread may take the signal nevertheless.
    came: list[int] = []
    handler = signal.signal(signal.SIGINT, lambda number, frame: came.append(number))
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        signal.signal(signal.SIGINT, handler)
    if came:
        signal.raise_signal(signal.SIGINT)


_job: Job | None = None
_stopped: Event | None = None
_counter: PictureCounter | None = None


def _prepare(job: Job, ranks: "SimpleQueue[int]", stopped: Event) -> None:
    """Set up a process; what may fail is left to the first picture, whose errors reach the parent."""
    global _job, _stopped
    _job, _stopped = job, stopped
    # Ctrl-C reaches every process; the parent alone speaks. Not every system can hold it back from the start.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    rank = ranks.get()
    if len(job.gpus) > 1:
        os.environ[GPUS_VARIABLE] = job.gpus[rank % len(job.gpus)]


def _end_with_parent() -> None:
    """A killed parent cannot end its processes, which would wait for work for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def _count(position: int) -> PictureCounts | None:
    """Count a picture; None once the parent has stopped."""
    global _counter
    assert _job is not None and _stopped is not None
    if _stopped.is_set():
        return None
    if _counter is None:
        stack = ExitStack()
        atexit.register(stack.close)
        sources = _job.setup.open(stack, _job.threads)
        for path, source, expected in zip(_job.setup.paths, sources, _job.runs_on, strict=True):
            if source.runs_on != expected:
                raise InputError(
                    f"--processes: {path} runs on {source.runs_on} in a process, but on {expected} in the "
                    f"first; name GPUs of one kind in {GPUS_VARIABLE}, or take 1"
                )
        texts = [np.load(file) for file in _job.texts]
        _counter = PictureCounter(_job.setup, sources, texts, _job.dataset, _job.chosen)
    return _counter(position)
