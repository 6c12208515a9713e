"""What a process of the check has found so far, and what its candidates have in common."""

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..files import replacing
from ..train.scenes import VOCABULARY, make_scene
from .gpu_check_jobs import Job, Model

RECORD_FILE = "record.json"
TOP_K = 8
# Percent of the pixels labelled as the reference does that make a candidate right; none is set for bfloat16.
AGREEMENT = {"fp32": 99.9, "fp16": 99.5}
MOST_RUNS = 30
LEAST_RUNS = 3
LATENCY_SECONDS = 8.0
_SHARED = 2.0


@dataclass(frozen=True, eq=False)
class Labelled:
    """Labels (H, W) of a picture, the categories alive after each rejection, and milliseconds by stage."""

    labels: np.ndarray
    kept: tuple[int, ...]
    timings: Mapping[str, float]


Labeller = Callable[[np.ndarray], Labelled]


class Steps:
    """A record on disk that is whole after every step, since the next one may end the process."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / RECORD_FILE
        self.found: dict[str, Any] = {}

    def note(self, **found: Any) -> None:
        """Add to the record."""
        self.found |= found
        with replacing(self._file) as temporary:
            temporary.write_text(json.dumps(self.found))

    @contextmanager
    def doing(self, step: str, seconds: str | None = None) -> Iterator[None]:
        """Name the step that is being done; note how long it took as `seconds` where that is given."""
        self.note(doing=step)
        started = time.perf_counter()
        yield
        if seconds is not None:
            self.note(**{seconds: time.perf_counter() - started})


def read_record(folder: Path) -> dict[str, Any]:
    """What a process has noted in its folder; nothing where it never came so far."""
    try:
        record: dict[str, Any] = json.loads((folder / RECORD_FILE).read_text())
    except OSError:
        return {}
    return record


def one_line(error: BaseException) -> str:
    """An exception as one line."""
    return " ".join(f"{type(error).__name__}: {error}".removeprefix("InputError: ").split())


def pictures(model: Model) -> list[np.ndarray]:
    """The test scenes of a model, uint8 (size, size, 3) each."""
    return [make_scene(seed, model.size, split="test").image for seed in range(model.scenes)]


def category_names(model: Model) -> list[str]:
    """The names of its categories."""
    if model.checkpoint is None:
        return [f"category {number}" for number in range(model.categories)]
    return list(VOCABULARY[: model.categories])


def random_text(categories: int, templates: int, width: int) -> np.ndarray:
    """Unit vectors, float32 (categories, templates, width); those of one category lie near each other."""
    random = np.random.default_rng(0)
    each = random.standard_normal((categories, templates, width), dtype=np.float32)
    each += _SHARED * random.standard_normal((categories, 1, width), dtype=np.float32)
    text: np.ndarray = each / np.linalg.norm(each, axis=-1, keepdims=True)
    return text


def measure(label: Labeller, job: Job, work: Path, steps: Steps) -> None:
    """The first call, agreement with the reference on all pictures, then latency on the same pictures.

    The pictures have all been seen once when latency is measured, and so has every size that they need.
    """
    images = pictures(job.model)
    with steps.doing("the first picture"):
        started = time.perf_counter()
        results = [label(images[0])]
        first = 1000 * (time.perf_counter() - started)
    with steps.doing("the test scenes"):
        results += [label(image) for image in images[1:]]
    steps.note(
        first_call_ms=first, kept=[result.kept for result in results], **_agreement(results, job, work)
    )
    with steps.doing("timing"):
        latency = _latency(label, images)
    steps.note(latency=latency)


def _agreement(results: Sequence[Labelled], job: Job, work: Path) -> dict[str, Any]:
    labels = np.stack([result.labels for result in results]).astype(np.uint16)
    kept = np.array([result.kept for result in results])
    file = job.reference_file(work)
    if job.reference:
        with replacing(file) as temporary:
            np.savez_compressed(temporary, labels=labels, kept=kept)
        return {"reference": True}
    if not file.is_file():
        return {"agreement": None, "agreement_missing": "the reference did not run"}
    with np.load(file) as expected:
        share = 100 * float(np.mean(labels == expected["labels"]))
        alike = int((kept == expected["kept"]).all(axis=1).sum())
    # Random weights leave many pixels between two categories; what they become then says little.
    limit = AGREEMENT.get(job.precision) if job.model.checkpoint is not None else None
    right = None if limit is None else share >= limit
    return {"agreement": share, "agreement_limit": limit, "right": right, "scenes_with_equal_kept": alike}


def _latency(label: Labeller, images: Sequence[np.ndarray]) -> dict[str, Any]:
    """Milliseconds from picture to labels, and medians of each stage."""
    times: list[float] = []
    stages: dict[str, list[float]] = {}
    until = time.perf_counter() + LATENCY_SECONDS
    while len(times) < MOST_RUNS and (len(times) < LEAST_RUNS or time.perf_counter() < until):
        started = time.perf_counter()
        result = label(images[len(times) % len(images)])
        times.append(1000 * (time.perf_counter() - started))
        for stage, milliseconds in result.timings.items():
            stages.setdefault(stage, []).append(milliseconds)
    return {
        "runs": len(times),
        # Of this machine in the last minute: others' work makes times worthless.
        "load_average": os.getloadavg()[0],
        "p50_ms": float(np.percentile(times, 50)),
        "p90_ms": float(np.percentile(times, 90)),
        "stages_ms": {stage: float(np.median(several)) for stage, several in stages.items()},
    }
