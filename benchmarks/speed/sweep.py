"""Rejection policies on the same scenes: what they keep, how long they take, which mIoU they reach."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ...runtime import KeepAll, Rejection, Result, Segmenter
from ...train.scenes import longer_vocabulary, make_scene
from ..accuracy.counts import Totals, pair_counts
from ..accuracy.evaluate import scene_scores
from ..results_file import CpuTimes, other_load_since, setting
from .rounds import GROUPS, Report, percentiles

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
class PolicyRun:
    """One policy over the scenes so far.

    Attributes:
        policy: as the runtime takes it.
        totals: of its labels against the true ones.
        times: milliseconds of each scene.
        decoder: milliseconds of each scene in the decoder.
        agreement: percent of the pixels of each scene with the label of `EVERYTHING`.
        kept: categories alive after each rejection point, for each scene.
    """

    policy: Rejection
    totals: Totals
    times: list[float] = field(default_factory=list)
    decoder: list[float] = field(default_factory=list)
    agreement: list[float] = field(default_factory=list)
    kept: list[tuple[int, ...]] = field(default_factory=list)

    def add(self, result: Result, milliseconds: float) -> None:
        """Note the result of one scene and its time."""
        self.times.append(milliseconds)
        self.decoder.append(sum(result.timings.get(stage, 0.0) for stage in GROUPS["decoder"]))
        self.kept.append(result.kept)

    def record(self, rejection: str) -> dict[str, Any]:
        """Plain values for the results file; `rejection` is the policy's text."""
        return scene_scores(self.totals, rejection) | {
            "kept_max": [int(largest) for largest in np.max(self.kept, axis=0)],
            "agreement": float(np.mean(self.agreement)),
            "decoder_p50_ms": float(np.median(self.decoder)),
            **percentiles(self.times),
        }


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
        policies: by their text on the command line. `EVERYTHING` is run as well: agreement is with it.
        sizes: of vocabularies that start with the scenes' own names.
        scenes: how many; each is labelled by all policies in turn, and another policy starts each time.
        max_drop: mIoU points below the best of `DEFAULT` and `EVERYTHING` that a recommended policy may lose.
        report: see `Report`.
        backend: of the bundle.
        threads: CPU threads.

    Raises:
        InputError: the bundle cannot be opened, or cannot run on the backend.
    """
    segmenter = Segmenter(bundle, backend, threads)
    manifest = segmenter.bundle.manifest
    started, rows, advice = CpuTimes.now(), [], {}
    for size in sizes:
        runs = _run_policies(segmenter, {EVERYTHING: KeepAll(), **policies}, size, scenes, report)
        of_size = [run.record(text) for text, run in runs.items()]
        advice[str(size)] = recommended(of_size, max_drop)
        rows += of_size
    return {
        **setting(),
        "other_load": other_load_since(started),
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
    """The policy with the shortest median time of those that lose at most `max_drop` points of mIoU.

    The points are lost against the better of `DEFAULT` and `EVERYTHING`.
    """
    best = max(row["miou"] for row in rows if row["rejection"] in (DEFAULT, EVERYTHING))
    good = [row for row in rows if row["miou"] >= best - max_drop]
    fastest = min(good, key=lambda row: float(row["p50_ms"]))
    return str(fastest["rejection"])


def _run_policies(
    segmenter: Segmenter, policies: Mapping[str, Rejection], size: int, scenes: int, report: Report
) -> dict[str, PolicyRun]:
    names = longer_vocabulary(size)
    vocabulary = segmenter.vocabulary(names, lambda done, all_: report(f"embedding {size} names", done, all_))
    runs = {text: PolicyRun(policy, Totals(size)) for text, policy in policies.items()}
    texts = list(runs)
    for seed in range(scenes):
        report(f"{size} categories, scenes", seed, scenes)
        scene = make_scene(seed, SCENE_SIZE, split="test")
        results: dict[str, Result] = {}
        for text in texts[seed % len(texts) :] + texts[: seed % len(texts)]:
            started = time.perf_counter()
            result = segmenter(scene.image, vocabulary, rejection=runs[text].policy, short_side=None)
            runs[text].add(result, 1000 * (time.perf_counter() - started))
            runs[text].totals.add(*pair_counts(scene.labels, result.labels, size), result.kept)
            results[text] = result
        for text, result in results.items():
            same = result.labels == results[EVERYTHING].labels
            runs[text].agreement.append(100 * float(same.mean()))
    return runs
