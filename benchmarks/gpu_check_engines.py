"""A candidate that runs a bundle: engines built where they must be, opened, compared and timed."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import numpy as np

from ..bundle import STAGES, Bundle
from ..engines.build.build import build_engines
from ..engines.device.cuda import find_gpu
from ..engines.store import find_built
from ..engines.targets import target_fits
from ..engines.trt import engines as tensorrt_engines
from ..errors import InputError
from ..runtime import Segmenter, TopK, Vocabulary
from .gpu_check_jobs import Job
from .gpu_check_steps import TOP_K, Labelled, Steps, category_names, measure
from .random_vocabulary import random_vocabulary


def run_engines(job: Job, work: Path, steps: Steps) -> None:
    """Take every step that the backend can; each is noted once it is done.

    Raises:
        InputError: a step cannot be done here.
    """
    bundle = job.bundle(work)
    steps.note(built=False if job.builds else None, opened=False)
    if job.builds:
        bundle = _with_engines(job, bundle, job.folder(work), steps)
    before = memory_used()
    with steps.doing("opening", seconds="open_seconds"), _engines_of_any_gpu():
        segmenter = Segmenter(bundle, job.backend)
        for stage in STAGES:
            # They open on first use, and whether they do is a question of its own.
            segmenter._engines[stage]
    steps.note(opened=True, ran_on=segmenter.backend)
    with steps.doing("embedding the vocabulary", seconds="vocabulary_seconds"):
        vocabulary = _vocabulary(job, segmenter)

    def label(image: np.ndarray) -> Labelled:
        result = segmenter(image, vocabulary, rejection=TopK(TOP_K), short_side=None)
        return Labelled(result.labels, result.kept, result.timings)

    measure(label, job, work, steps)
    after = memory_used()
    if before is not None and after is not None:
        steps.note(device_mib=after - before)
    if segmenter.backend != "onnxruntime":
        # Last, since it visits sizes that no picture here needs, and may be stopped while it does.
        with steps.doing("warming up", seconds="warmup_seconds"):
            segmenter.warmup(vocabulary)
    steps.note(doing="ending")


def memory_used() -> int | None:
    """MiB in use on the first GPU by all processes; None where nvidia-smi cannot tell."""
    command = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
        return int(done.stdout.split()[0])
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return None


def _with_engines(job: Job, bundle: Path, folder: Path, steps: Steps) -> Path:
    """A copy of the bundle whose only engines are those of the job."""
    copy = folder / "bundle"
    shutil.copytree(bundle, copy, copy_function=_linked)
    with steps.doing("building", seconds="build_seconds"):
        engines = build_engines(Bundle.open(copy), job.backend, job.target).engines
    steps.note(built=True, built_for=engines.target, version=engines.version)
    try:
        steps.note(meant_for_this_gpu=target_fits(engines.target, find_gpu().capability))
    except InputError:
        steps.note(meant_for_this_gpu=None)
    return copy


def _linked(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


@contextmanager
def _engines_of_any_gpu() -> Iterator[None]:
    """Open engines that were not built for this GPU: whether it runs them is what is to be found out."""
    with mock.patch.object(
        tensorrt_engines, "find_built", lambda bundle, backend, _gpu: find_built(bundle, backend, None)
    ):
        yield


def _vocabulary(job: Job, segmenter: Segmenter) -> Vocabulary:
    if job.model.checkpoint is not None:
        return segmenter.vocabulary(category_names(job.model))
    return random_vocabulary(segmenter.bundle.manifest, job.model.categories)
