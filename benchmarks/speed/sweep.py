"""Rejection policies against one another: what they keep, how long they take, what they cost in mIoU."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ...runtime import KeepAll, Rejection, Result, Segmenter
from ...train.scenes import longer_vocabulary, make_scene
from ..accuracy.evaluate import Tally
from ..accuracy.predictors import Prediction
from ..results_file import setting
from .latency import GROUPS, Report, percentiles

SCENE_SIZE = 256
EVERYTHING = "none"
DEFAULT = "topk:8"
POLICIES = (
    EVERYTHING,
    "topk:1",
    "topk:2",
    "topk:4",
    DEFAULT,
    "min-pixels:8:5",
    "min-pixels:8:20",
    "min-pixels:4:20",
    "budget:16",
    "budget:32",
    "budget:64",
)


@dataclass
class Tried:
    """One policy over the scenes so far."""

    policy: Rejection
    tally: Tally
    times: list[float] = field(default_factory=list)
    decoder: list[float] = field(default_factory=list)
    alike: list[float] = field(default_factory=list)
    kept: list[tuple[int, ...]] = field(default_factory=list)


def sweep(
    bundle: Path,
    policies: Mapping[str, Rejection],
    sizes: Sequence[int],
    scenes: int,
    max_drop: float,
    report: Report,
    backend: str | None = None,
    threads: int | None = None,
) -> dict[str, Any]:
    """The content of a results file: every policy on every vocabulary, on the same test scenes.

    Args:
        bundle: a bundle folder.
        policies: by their text on the command line. `EVERYTHING` is tried as well: agreement is with it.
        sizes: of vocabularies that start with the scenes' own names.
        scenes: how many; each is labelled by all policies in turn, by another one first each time.
        max_drop: mIoU points below the best of `DEFAULT` and `EVERYTHING` that a recommended policy may lose.
        report: called with (what is being done, steps done, steps in all).
        backend: of the bundle.
        threads: CPU threads.

    Raises:
        InputError: the bundle cannot be opened, or cannot run on the backend.
    """
    segmenter = Segmenter(bundle, backend, threads)
    manifest = segmenter.bundle.manifest
    before, rows, advice = setting(), [], {}
    for size in sizes:
        tried = _try(segmenter, {EVERYTHING: KeepAll(), **policies}, size, scenes, report)
        of_size = [_row(text, each, size) for text, each in tried.items()]
        advice[str(size)] = recommended(of_size, max_drop)
        rows += of_size
    return {
        **before,
        "preset": manifest.preset,
        "precision": manifest.precision,
        "backend": segmenter.backend,
        "size": SCENE_SIZE,
        "scenes": scenes,
        "max_drop": max_drop,
        "recommended": advice,
        "results": rows,
    }


def recommended(rows: Sequence[Mapping[str, Any]], max_drop: float) -> str:
    """The policy with the least median time among those that lose at most `max_drop` points of mIoU.

    They are measured against the better of `DEFAULT` and `EVERYTHING`.
    """
    best = max(row["miou"] for row in rows if row["rejection"] in (DEFAULT, EVERYTHING))
    good = [row for row in rows if row["miou"] >= best - max_drop]
    fastest = min(good, key=lambda row: float(row["p50_ms"]))
    return str(fastest["rejection"])


def _try(
    segmenter: Segmenter, policies: Mapping[str, Rejection], size: int, scenes: int, report: Report
) -> dict[str, Tried]:
    names = longer_vocabulary(size)
    vocabulary = segmenter.vocabulary(names, lambda done, all_: report(f"embedding {size} names", done, all_))
    tried = {text: Tried(policy, Tally(size, text)) for text, policy in policies.items()}
    texts = list(tried)
    for seed in range(scenes):
        report(f"{size} categories, scenes", seed, scenes)
        scene = make_scene(seed, SCENE_SIZE, split="test")
        results: dict[str, Result] = {}
        for text in texts[seed % len(texts) :] + texts[: seed % len(texts)]:
            started = time.perf_counter()
            result = segmenter(scene.image, vocabulary, rejection=tried[text].policy, short_side=None)
            _note(tried[text], result, 1000 * (time.perf_counter() - started))
            tried[text].tally.add(scene.labels, Prediction(result.labels, result.kept))
            results[text] = result
        for text, result in results.items():
            same = result.labels == results[EVERYTHING].labels
            tried[text].alike.append(100 * float(same.mean()))
    return tried


def _note(tried: Tried, result: Result, milliseconds: float) -> None:
    tried.times.append(milliseconds)
    tried.decoder.append(sum(result.timings.get(stage, 0.0) for stage in GROUPS["decoder"]))
    tried.kept.append(result.kept)


def _row(text: str, tried: Tried, size: int) -> dict[str, Any]:
    scores = asdict(tried.tally.scores())
    return scores | {
        "categories": size,
        "rejection": text,
        "kept_most": [int(most) for most in np.max(tried.kept, axis=0)],
        "agreement": float(np.mean(tried.alike)),
        "decoder_p50_ms": float(np.median(tried.decoder)),
        **percentiles(tried.times),
    }
