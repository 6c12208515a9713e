"""Latency of a bundle and of what one would use instead, in alternating runs on the same pictures."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ...errors import InputError
from ...runtime import KeepAll, Rejection, Segmenter, TopK, Vocabulary
from ...train.scenes import make_scene
from ..gpu_check_steps import Labelled, one_line
from .candidates import BASELINE, OURS, Candidate, Forced, KeptSets, Recorder, Run


def percentiles(times: Sequence[float]) -> dict[str, float]:
    """The least, and the 50th, 90th and 99th percentile, interpolated between runs where there are few."""
    found = np.percentile(times, [50, 90, 99])
    named = {f"p{percent}_ms": float(value) for percent, value in zip((50, 90, 99), found, strict=True)}
    return {"least_ms": float(np.min(times))} | named


def ratios(slow: Sequence[float], fast: Sequence[float]) -> dict[str, Any]:
    """How many times longer `slow` took than `fast`: by their medians, their least, and quartiles of rounds.

    Both have one time for each round, taken one after the other, so that what else the machine was doing
    hit both alike. The ratio of the least times is the one that other work disturbs least.
    """
    by_round = np.asarray(slow) / np.asarray(fast)
    lower, middle, upper = (float(value) for value in np.percentile(by_round, [25, 50, 75]))
    return {
        "of_medians": float(np.median(slow) / np.median(fast)),
        "of_least": float(np.min(slow) / np.min(fast)),
        "q1": lower,
        "median": middle,
        "q3": upper,
    }


Report = Callable[[str, int, int], None]

# Stages of either side that do the same work; "whole" is the time of the call.
GROUPS: dict[str, tuple[str, ...]] = {
    "image": ("image",),
    "scout": ("scout",),
    "decoder": ("scout", "guidance", "decode1", "decode2", "decode3"),
    "label": ("label",),
}
REAL = "real"
STREAM_BATCHES = (1, 4)
# PyTorch's and ONNX Runtime's exceptions for too little memory are RuntimeErrors.
FAILURES = (RuntimeError, MemoryError, InputError)


@dataclass(frozen=True)
class Case:
    """A row of the benchmark.

    Attributes:
        vocabulary: T categories.
        kept: what is kept: a number, "all" or "real".
        pictures: uint8 (H, W, 3).
    """

    vocabulary: Vocabulary
    kept: str
    pictures: Sequence[np.ndarray]

    def policy(self) -> Rejection:
        """The policy that keeps it in our runtime."""
        if self.kept == REAL:
            return TopK()
        return KeepAll() if self.kept == "all" else Forced(int(self.kept))

    def sets(self, segmenter: Segmenter) -> list[KeptSets]:
        """What each picture keeps at the three points; "real" ones are found by our runtime."""
        count = len(self.vocabulary)
        if self.kept != REAL:
            return [Forced(count if self.kept == "all" else int(self.kept)).sets(count)] * len(self.pictures)
        found = []
        for picture in self.pictures:
            recorder = Recorder(TopK())
            segmenter(picture, self.vocabulary, rejection=recorder, short_side=None)
            first, second, third = recorder.sets
            found.append((first, second, third))
        return found


@dataclass
class Tally:
    """What one candidate did in a row; `first_call_ms` is None where its first call was no cold one."""

    first_call_ms: float | None
    agreement: float | None
    kept: tuple[float, ...]
    times: list[float] = field(default_factory=list)
    cpu_times: list[float] = field(default_factory=list)
    stages: dict[str, list[float]] = field(default_factory=dict)

    def group(self, name: str) -> list[float] | None:
        """Milliseconds of a group of stages by round; None where the candidate has no such stages."""
        if name == "whole":
            return self.times
        parts = [self.stages[stage] for stage in GROUPS[name] if stage in self.stages]
        return [float(total) for total in np.sum(parts, axis=0)] if parts else None

    def record(self) -> dict[str, Any]:
        """Plain values for the results file."""
        return {
            "runs": len(self.times),
            "first_call_ms": self.first_call_ms,
            "agreement": self.agreement,
            "kept": list(self.kept),
            **percentiles(self.times),
            # Far less than its threads times the wall time: something else had the cores.
            "cpu_p50_ms": float(np.median(self.cpu_times)),
            "stages": {stage: percentiles(times) for stage, times in self.stages.items()},
        }


def pictures_of(count: int, size: int) -> list[np.ndarray]:
    """Test scenes, uint8 (size, size, 3)."""
    return [make_scene(seed, size, split="test").image for seed in range(count)]


def compare(
    case: Case, segmenter: Segmenter, candidates: Sequence[Candidate], rounds: int, report: Report
) -> dict[str, Any]:
    """One row: all candidates on all pictures, first once without counting, then in alternating rounds.

    A round is one picture that each candidate labels; who begins changes from round to round. A candidate
    that fails, the first time or in a round, leaves the row with its error; the others go on.

    Args:
        case: of the row.
        segmenter: of the bundle, which finds what "real" rows keep.
        candidates: ours, then others; labels are compared with those of `BASELINE` if it is one of them.
        rounds: how many.
        report: called with (what is being done, steps done, steps in all).
    """
    title = f"{len(case.vocabulary)} categories, kept {case.kept}"
    total = len(candidates) + rounds
    sets = case.sets(segmenter)
    runs = {candidate.name: candidate.with_vocabulary(case.vocabulary) for candidate in candidates}
    errors: dict[str, str] = {}
    labelled: dict[str, tuple[float, list[Labelled]]] = {}
    for done, (name, run) in enumerate(runs.items()):
        report(f"{title}: {name} for the first time", done, total)
        try:
            labelled[name] = _first_pass(run, case.pictures, sets)
        except FAILURES as error:
            errors[name] = one_line(error)
    reference = labelled[BASELINE][1] if BASELINE in labelled else None
    # Our runtime found what "real" rows keep, so that ours alone would be warm at its first call.
    tallies = {
        name: _tally(None if case.kept == REAL else first, results, reference)
        for name, (first, results) in labelled.items()
    }
    names = list(tallies)
    for number in range(rounds):
        report(f"{title}: round {number + 1}", len(candidates) + number, total)
        picture, kept = case.pictures[number % len(sets)], sets[number % len(sets)]
        begins = number % len(names) if names else 0
        for name in names[begins:] + names[:begins]:
            try:
                _timed_run(runs[name], picture, kept, tallies[name])
            except FAILURES as error:
                # Its times go with it: ratios pair the rounds, and those that are left have run in all.
                errors[name] = one_line(error)
                names.remove(name)
                del tallies[name]
    return {
        "categories": len(case.vocabulary),
        "kept": case.kept,
        "candidates": {name: tally.record() for name, tally in tallies.items()},
        "errors": errors,
        "ours_faster_than": _ratios(tallies),
    }


def images_per_second(case: Case, segmenter: Segmenter, pictures: int) -> dict[str, float]:
    """Pictures a second that `Segmenter.stream` gives, by size of its batches."""
    found = {}
    given = [case.pictures[number % len(case.pictures)] for number in range(pictures)]
    for batch in STREAM_BATCHES:
        started = time.perf_counter()
        results = segmenter.stream(given, case.vocabulary, case.policy(), short_side=None, batch=batch)
        for item in results:
            if item.error is not None:
                raise InputError(item.error)
        found[f"stream, batch {batch}"] = pictures / (time.perf_counter() - started)
    return found


def _first_pass(
    run: Run, pictures: Sequence[np.ndarray], sets: Sequence[KeptSets]
) -> tuple[float, list[Labelled]]:
    started = time.perf_counter()
    results = [run(pictures[0], sets[0])]
    first = 1000 * (time.perf_counter() - started)
    results += [run(picture, kept) for picture, kept in zip(pictures[1:], sets[1:], strict=True)]
    return first, results


def _tally(first: float | None, results: Sequence[Labelled], reference: Sequence[Labelled] | None) -> Tally:
    agreement = None
    if reference is not None:
        pairs = zip(results, reference, strict=True)
        agreement = 100 * float(np.mean([np.mean(ours.labels == theirs.labels) for ours, theirs in pairs]))
    kept = np.mean([result.kept for result in results], axis=0)
    return Tally(first, agreement, tuple(float(count) for count in kept))


def _timed_run(run: Run, picture: np.ndarray, sets: KeptSets, tally: Tally) -> None:
    started, worked = time.perf_counter(), time.process_time()
    result = run(picture, sets)
    tally.times.append(1000 * (time.perf_counter() - started))
    tally.cpu_times.append(1000 * (time.process_time() - worked))
    for stage, milliseconds in result.timings.items():
        tally.stages.setdefault(stage, []).append(milliseconds)


def _ratios(tallies: Mapping[str, Tally]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    mine = tallies.get(OURS)
    for name, theirs in tallies.items():
        if mine is None or name == OURS:
            continue
        found[name] = {}
        for group in ("whole", *GROUPS):
            slow, fast = theirs.group(group), mine.group(group)
            if slow and fast:
                found[name][group] = ratios(slow, fast)
    return found
