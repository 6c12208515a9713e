"""Images of data sets labelled and counted, in one process or several, but none that was counted before."""

import multiprocessing
import os
import signal
import tempfile
import threading
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, cast

import numpy as np

from ... import __version__
from ...errors import InputError
from ...runtime import Rejection
from ..results_file import output_of, usable_cores
from .counts import ImageCounts, PredictionCounts, SetCounts, pair_counts
from .predictors import EvaluationSource, Predictor, open_source
from .protocol import limit_short_side
from .shards import SCRATCH, ChosenImages, ProgressFolder, SetProgress, append_record, source_digest

GPUS_VARIABLE = "CUDA_VISIBLE_DEVICES"

# Called with (what is being done, steps done, steps in all).
Report = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Setup:
    """What labels, and how.

    Attributes:
        paths: of the checkpoint or bundle in question, and of the one it is compared with if there is one.
        policies: rejection policies by their text on the command line.
        backend: of bundles; None is "auto".
        emulate: whether a half-precision bundle that only the CPU can run is rounded after every operator.
        short_side: first resize of the images; None gives them straight to the network.
        threads: CPU threads of one operator; None is one per core.
        processes: how many label images side by side, each with sources of its own.
        shard: (i, n) labels every n-th image from the i-th on and leaves the others to other runs.
        progress: where counts are kept until the results are written; None keeps them only while it runs.
        save_every: images after which a process forces its counts to the disk.
    """

    paths: tuple[Path, ...]
    policies: Mapping[str, Rejection]
    backend: str | None = None
    emulate: bool = True
    short_side: int | None = None
    threads: int | None = None
    processes: int = 1
    shard: tuple[int, int] = (1, 1)
    progress: ProgressFolder | None = None
    save_every: int = 25

    def open(self, stack: ExitStack) -> Sequence[EvaluationSource]:
        """Open the sources until `stack` closes; raises InputError as `open_source` does."""
        return [
            stack.enter_context(open_source(path, self.backend, self.emulate, self.short_side, self.threads))
            for path in self.paths
        ]

    def identity(self, sources: Sequence[EvaluationSource]) -> dict[str, Any]:
        """What of the settings and of the opened sources can change the counts, as JSON can hold it.

        Raises:
            InputError: the file of a source cannot be read.
        """
        digests = map(source_digest, self.paths)
        return {
            "sed_trt": __version__,
            "sources": [[digest, source.runs_on] for digest, source in zip(digests, sources, strict=True)],
            "policies": list(self.policies),
            "short_side": self.short_side,
        }


def count_sets(
    setup: Setup, sources: Sequence[EvaluationSource], sets: Sequence[ChosenImages], report: Report
) -> Generator[SetCounts, None, None]:
    """Label the images whose counts `setup.progress` does not have, and give the counts of each set.

    `sources` are those of `setup`, opened.

    Raises:
        InputError: an image cannot be read, a source cannot run a policy, or the counts cannot be kept.
    """
    with ExitStack() as stack:
        folder = setup.progress
        if folder is None:
            scratch = stack.enter_context(tempfile.TemporaryDirectory(prefix=SCRATCH))
            folder = ProgressFolder(Path(scratch) / "progress", lambda line: None)
        for progress in stack.enter_context(folder.begin(setup.identity(sources), sets)):
            yield _count_set(setup, sources, progress, report)


def _count_set(
    setup: Setup, sources: Sequence[EvaluationSource], progress: SetProgress, report: Report
) -> SetCounts:
    counts = progress.load(len(setup.policies), len(sources))
    number, of = setup.shard
    positions = [each for each in range(number - 1, len(counts.done), of) if not counts.done[each]]
    if not positions:
        return counts
    dataset = progress.chosen.dataset
    embedding = f"embedding {len(dataset.names)} names"
    texts = [
        source.embed(dataset.names, lambda done, total: report(embedding, done, total)) for source in sources
    ]
    what = f"{dataset.name}, {len(dataset.names)} categories, {', '.join(setup.policies)}"
    before = int(counts.done.sum())
    total = before + len(positions)
    report(what, before, total)
    count = _count_in_processes if min(setup.processes, len(positions)) > 1 else _count_images
    with closing(count(setup, sources, texts, progress, positions)) as counted:
        for done, _ in enumerate(counted, before + 1):
            report(what, done, total)
    counts = progress.load(len(setup.policies), len(sources))
    if not counts.done[positions].all():
        raise InputError(
            f"{progress.folder}: files of this evaluation were removed while it ran, perhaps by another run "
            "of it; give the same command again"
        )
    return counts


def _count_images(
    setup: Setup,
    sources: Sequence[EvaluationSource],
    texts: Sequence[np.ndarray],
    progress: SetProgress,
    positions: Sequence[int],
) -> Generator[None, None, None]:
    """Label the images at `positions`, and append the counts of each to a file; yields after each.

    `texts` are each source's embeddings of the names, float32 (T, P, C).
    """
    chosen, policies = progress.chosen, tuple(setup.policies.values())
    predictors = [
        source.predictor(chosen.dataset.names, text, policies)
        for source, text in zip(sources, texts, strict=True)
    ]
    file = progress.new_file()
    for number, position in enumerate(positions, 1):
        image = _count_image(predictors, chosen, position, progress.stamps[position])
        append_record(file, image, sync=number % setup.save_every == 0)
        yield


def _count_image(
    predictors: Sequence[Predictor], chosen: ChosenImages, position: int, stamps: list[int]
) -> ImageCounts:
    dataset = chosen.dataset
    sample = limit_short_side(dataset[chosen.indices[position]], dataset.max_short_side)
    try:
        by_source = [predict(sample.image) for predict in predictors]
    except InputError as error:
        raise InputError(f"{chosen.identity(position)}: {error}") from error
    image = ImageCounts(position, stamps, sample.labels.size, [], [])
    for predictions in zip(*by_source, strict=True):
        same = np.logical_and.reduce([predictions[0].labels == each.labels for each in predictions])
        image.equal.append(int(same.sum()))
        counts = []
        for each in predictions:
            pairs = pair_counts(sample.labels, dataset.scored_as[each.labels], len(dataset.classes))
            counts.append(PredictionCounts(*pairs, list(each.kept)))
        image.predictions.append(counts)
    return image


def _count_in_processes(
    setup: Setup,
    sources: Sequence[EvaluationSource],
    texts: Sequence[np.ndarray],
    progress: SetProgress,
    positions: Sequence[int],
) -> Generator[None, None, None]:
    """As `_count_images`, in several processes, between which the cores and the GPUs are divided."""
    number, gpus = min(setup.processes, len(positions)), visible_gpus()
    share = replace(setup, threads=max(1, usable_cores() // number), progress=None)
    runs_on = [source.runs_on for source in sources]
    processes: dict[Connection, BaseProcess] = {}
    with tempfile.TemporaryDirectory(prefix=SCRATCH, dir=progress.folder) as folder:
        for index, text in enumerate(texts):
            np.save(Path(folder) / f"{index}.npy", text)

        def start(rank: int) -> None:
            context = multiprocessing.get_context("spawn")
            receiver, sender = context.Pipe(duplex=False)
            gpu = gpus[rank % len(gpus)] if len(gpus) > 1 else None
            work = (share, runs_on, Path(folder), progress, positions[rank::number], gpu, sender)
            process = context.Process(target=_work, args=work, daemon=True)
            process.start()
            processes[receiver] = process
            sender.close()

        try:
            # An interrupt of this thread does not reach the one that starts processes, so that none is lost.
            with ThreadPoolExecutor(1, initializer=_block_interrupt) as starter:
                list(starter.map(start, range(number)))
            yield from _messages(processes)
        except EOFError as error:
            raise InputError(
                f"--processes: one of {number} ended before its work did; unless an error above says why, it "
                "was killed, perhaps for want of memory: take fewer"
            ) from error
        finally:
            for process in processes.values():
                process.kill()
            for process in processes.values():
                process.join()


def visible_gpus() -> tuple[str, ...]:
    """The GPUs that CUDA_VISIBLE_DEVICES names, or else all that NVIDIA's driver lists."""
    named = os.environ.get(GPUS_VARIABLE)
    if named is not None:
        return tuple(name.strip() for name in named.split(",") if name.strip())
    listed = output_of(["nvidia-smi", "--list-gpus"])
    # Indented lines name the parts into which a GPU is divided.
    gpus = [line for line in listed.splitlines() if line.startswith("GPU ")]
    return tuple(map(str, range(len(gpus))))


def _block_interrupt() -> None:
    """Keep Ctrl-C from processes that this thread starts, even while they import: they inherit its mask."""
    if hasattr(signal, "pthread_sigmask"):
        # Python 3.11 starts the tracker with the first process, and unblocks the signal afterwards.
        resource_tracker.ensure_running()
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})


def _messages(processes: dict[Connection, BaseProcess]) -> Generator[None, None, None]:
    """Yield for each image that a process has counted, until all have ended; those are removed.

    Raises:
        InputError: a process reports it.
        EOFError: a process failed without a report.
    """
    while processes:
        for receiver in cast(list[Connection], wait(list(processes))):
            try:
                error = receiver.recv()
            except EOFError:
                process = processes.pop(receiver)
                process.join()
                if process.exitcode != 0:
                    raise
            else:
                if error is not None:
                    raise error
                yield


def _work(
    setup: Setup,
    runs_on: Sequence[str],
    folder: Path,
    progress: SetProgress,
    positions: Sequence[int],
    gpu: str | None,
    sender: Connection,
) -> None:
    """The whole work of a process: sends None for each image, and an InputError if there is one.

    `runs_on` is what each source runs on in the parent; the embeddings are in `folder`.
    """
    # For systems on which `_block_interrupt` does nothing.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # The parent kills processes that it no longer needs, and removes their temporary files with the folder.
    tempfile.tempdir = str(folder)
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    if gpu is not None:
        os.environ[GPUS_VARIABLE] = gpu
    try:
        with ExitStack() as stack:
            sources = setup.open(stack)
            for path, source, expected in zip(setup.paths, sources, runs_on, strict=True):
                if source.runs_on != expected:
                    raise InputError(
                        f"--processes: {path} runs on {source.runs_on} in a process, but on {expected} in "
                        f"the first; name GPUs of one kind in {GPUS_VARIABLE}, or take 1"
                    )
            embeddings = [np.load(folder / f"{index}.npy") for index in range(len(sources))]
            for _ in _count_images(setup, sources, embeddings, progress, positions):
                sender.send(None)
    except InputError as error:
        sender.send(error)


def _exit_with_parent() -> None:
    """Exit when the parent has ended: a parent that is killed cannot end its processes."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
