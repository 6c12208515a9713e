"""One row of the latency benchmark: all candidates on the same images, in alternating rounds."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from ...errors import InputError
from ...runtime import KeepAll, Rejection, Segmenter, TopK, Vocabulary
from ...stages import DECODER
from ...train.scenes import make_scene
from ..results_file import one_line
from .candidates import BASELINE, GUIDANCE, OURS, Candidate, Forced, KeptSets, Outcome, Recorder, Run

# Called with what is being done, the steps done, and the steps in all.
Report = Callable[[str, int, int], None]

# Steps of either side that do the same work, by the name of the group; "whole" is the time of the call.
GROUPS: Mapping[str, tuple[str, ...]] = {
    "image": ("image",),
    "scout": ("scout",),
    "decoder": (GUIDANCE, *(stage.name for stage in DECODER)),
    "label": ("label",),
}
REAL = "real"
STREAM_BATCHES = (1, 4)
ONE_AT_A_TIME = "one at a time"
SIDE_BY_SIDE = "side by side"
# PyTorch's and ONNX Runtime's exceptions for too little memory are RuntimeErrors.
FAILURES = (RuntimeError, MemoryError, InputError)


@dataclass(frozen=True)
class Case:
    """What the candidates of a row are given.

    Attributes:
        vocabulary: T categories.
        kept: how many are kept at each rejection point: a number, "all", or "real" for those of topk:8.
        images: uint8 (H, W, 3).
    """

    vocabulary: Vocabulary
    kept: str
    images: Sequence[np.ndarray]

    @property
    def title(self) -> str:
        """The row in a few words."""
        return f"{len(self.vocabulary)} categories, kept {self.kept}"

    def policy(self) -> Rejection:
        """The rejection policy that keeps so many in our runtime."""
        if self.kept == REAL:
            return TopK()
        return KeepAll() if self.kept == "all" else Forced(int(self.kept))

    def sets(self, segmenter: Segmenter | None) -> list[KeptSets]:
        """The sets to keep of each image at the three points; our runtime finds those of "real"."""
        count = len(self.vocabulary)
        if self.kept != REAL:
            forced = Forced(count if self.kept == "all" else int(self.kept))
            return [forced.sets(count)] * len(self.images)
        assert segmenter is not None
        sets = []
        for image in self.images:
            recorder = Recorder(TopK())
            segmenter(image, self.vocabulary, rejection=recorder, short_side=None)
            first, second, third = recorder.sets
            sets.append((first, second, third))
        return sets


@dataclass
class CandidateTimes:
    """What one candidate did in a row; times are milliseconds, one for each round.

    Attributes:
        first_call_ms: of its first image; None where the candidate had run before.
        agreement: percent of the pixels with the label of `BASELINE`; None where that did not run.
        kept: mean numbers of categories alive after each rejection point.
        times: from image to labels.
        cpu_times: processor time of all its threads.
        stages: by step.
    """

    first_call_ms: float | None
    agreement: float | None
    kept: tuple[float, ...]
    times: list[float] = field(default_factory=list)
    cpu_times: list[float] = field(default_factory=list)
    stages: dict[str, list[float]] = field(default_factory=dict)

    @classmethod
    def of(
        cls, first: float | None, outcomes: Sequence[Outcome], reference: Sequence[Outcome] | None
    ) -> "CandidateTimes":
        """Without rounds so far, from the outcomes of the first pass over all images."""
        agreement = None
        if reference is not None:
            pairs = zip(outcomes, reference, strict=True)
            agreement = 100 * float(np.mean([np.mean(mine.labels == other.labels) for mine, other in pairs]))
        kept = np.mean([outcome.kept for outcome in outcomes], axis=0)
        return cls(first, agreement, tuple(float(count) for count in kept))

    def add(self, run: Run, image: np.ndarray, sets: KeptSets) -> None:
        """Run a round and note its times."""
        started, worked = time.perf_counter(), time.process_time()
        outcome = run(image, sets)
        self.times.append(1000 * (time.perf_counter() - started))
        self.cpu_times.append(1000 * (time.process_time() - worked))
        for stage, milliseconds in outcome.timings.items():
            self.stages.setdefault(stage, []).append(milliseconds)

    def group(self, name: str) -> list[float] | None:
        """Milliseconds of a group of `GROUPS` by round; None where the candidate has no such steps."""
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
            # Far less than its threads times the wall time: other processes had the cores.
            "cpu_p50_ms": float(np.median(self.cpu_times)),
            "stages": {stage: percentiles(times) for stage, times in self.stages.items()},
        }


def scene_images(count: int, size: int) -> list[np.ndarray]:
    """Test scenes, uint8 (size, size, 3)."""
    return [make_scene(seed, size, split="test").image for seed in range(count)]


@dataclass(frozen=True)
class Comparison:
    """All candidates on one case.

    Attributes:
        case: of the row.
        ours: names of the candidates that are bundles.
        times: by candidate, those that ran in all rounds.
        errors: by candidate, why the others did not.
    """

    case: Case
    ours: Sequence[str]
    times: Mapping[str, CandidateTimes]
    errors: Mapping[str, str]

    def row(self, mine: str = OURS) -> dict[str, Any]:
        """A row of the results file: one bundle, which is called `OURS` there, and the baselines."""
        others = {name: each for name, each in self.times.items() if name not in self.ours}
        times = ({OURS: self.times[mine]} if mine in self.times else {}) | others
        errors = {
            OURS if name == mine else name: error
            for name, error in self.errors.items()
            if name == mine or name not in self.ours
        }
        return {
            "categories": len(self.case.vocabulary),
            "kept": self.case.kept,
            "candidates": {name: each.record() for name, each in times.items()},
            "errors": errors,
            "ours_faster_than": _ratios_to_ours(times),
        }


def compare(
    case: Case, segmenter: Segmenter | None, candidates: Sequence[Candidate], rounds: int, report: Report
) -> Comparison:
    """Run all candidates on all images, then in rounds that start with another one each time.

    A candidate that fails leaves the row with its error; the others continue.

    Args:
        case: of the row.
        segmenter: of a bundle, which finds what "real" rows keep; None where the case is not of these.
        candidates: ours, then others; labels are compared with those of `BASELINE` if it is one of them.
        rounds: how many.
        report: see `Report`.
    """
    total = len(candidates) + rounds
    sets = case.sets(segmenter)
    errors: dict[str, str] = {}
    runs: dict[str, Run] = {}
    passes: dict[str, tuple[float, list[Outcome]]] = {}
    for done, candidate in enumerate(candidates):
        report(f"{case.title}: {candidate.name} for the first time", done, total)
        try:
            run = candidate.with_vocabulary(case.vocabulary)
            passes[candidate.name] = _first_pass(run, case.images, sets)
            runs[candidate.name] = run
        except FAILURES as error:
            errors[candidate.name] = one_line(error)
    reference = passes[BASELINE][1] if BASELINE in passes else None
    # Our runtime found what "real" rows keep, so that ours alone would be warm at its first call.
    times = {
        name: CandidateTimes.of(None if case.kept == REAL else first, outcomes, reference)
        for name, (first, outcomes) in passes.items()
    }
    names = list(times)
    for number in range(rounds):
        report(f"{case.title}: round {number + 1}", len(candidates) + number, total)
        image, kept = case.images[number % len(sets)], sets[number % len(sets)]
        for name in _rotated(names, number):
            try:
                times[name].add(runs[name], image, kept)
            except FAILURES as error:
                # Its times go with it: ratios pair the rounds, and those that are left have run in all.
                errors[name] = one_line(error)
                names.remove(name)
                del times[name]
    mine = [candidate.name for candidate in candidates if candidate.is_ours]
    return Comparison(case, mine, times, errors)


def _rotated(names: Sequence[str], number: int) -> list[str]:
    """The names from another one on in each round: what runs first is not always the same."""
    start = number % len(names) if names else 0
    return [*names[start:], *names[:start]]


def _first_pass(
    run: Run, images: Sequence[np.ndarray], sets: Sequence[KeptSets]
) -> tuple[float, list[Outcome]]:
    """Milliseconds of the first image, and the outcomes of all."""
    started = time.perf_counter()
    outcomes = [run(images[0], sets[0])]
    first = 1000 * (time.perf_counter() - started)
    outcomes += [run(image, kept) for image, kept in zip(images[1:], sets[1:], strict=True)]
    return first, outcomes


def compare_streams(
    case: Case, segmenter: Segmenter, count: int, rounds: int, side_by_side: Segmenter | None = None
) -> dict[str, Any]:
    """Images per second of `Segmenter.stream` by the size of its batches, and of one image at a time.

    All of them take the same `count` images in alternating rounds. `side_by_side` is of the same bundle, and
    takes several images at once.

    Returns:
        `images_per_second`, by way the median over the rounds; `stream_faster`, by batch the ratio to one
        image at a time, see `ratios`.

    Raises:
        InputError: an image could not be segmented.
    """
    images = [case.images[number % len(case.images)] for number in range(count)]

    def one_at_a_time() -> None:
        for image in images:
            segmenter(image, case.vocabulary, case.policy(), short_side=None)

    def stream(batch: int, streamed: Segmenter = segmenter) -> None:
        for item in streamed.stream(images, case.vocabulary, case.policy(), short_side=None, batch=batch):
            if item.error is not None:
                raise InputError(item.error)

    ways: dict[str, Callable[[], None]] = {ONE_AT_A_TIME: one_at_a_time}
    ways |= {f"stream, batch {batch}": partial(stream, batch) for batch in STREAM_BATCHES}
    if side_by_side is not None:
        ways[SIDE_BY_SIDE] = partial(stream, 1, side_by_side)
    for way in ways.values():
        # The first run of a batch size plans its memory.
        way()
    times = alternate(ways, rounds)
    return {
        "images_per_second": {name: float(count / np.median(each)) for name, each in times.items()},
        "stream_faster": {
            name: ratios(times[ONE_AT_A_TIME], each) for name, each in times.items() if name != ONE_AT_A_TIME
        },
    }


def compare_sizes(cases: Sequence[Case], segmenter: Segmenter, rounds: int) -> dict[str, Any]:
    """How much longer an image takes with a larger vocabulary, in alternating rounds.

    Args:
        cases: with vocabularies of rising size, and the same image.
        segmenter: of the bundle.
        rounds: how many, after one that is not counted.

    Returns:
        `categories` of each; `p50_ms`, the median time of each; `longer`, how many times longer each but the
        first takes than that, see `ratios`.
    """

    def once(case: Case) -> None:
        segmenter(case.images[0], case.vocabulary, case.policy(), short_side=None)

    ways = {str(len(case.vocabulary)): partial(once, case) for case in cases}
    for way in ways.values():
        way()
    times = list(alternate(ways, rounds).values())
    return {
        "categories": [len(case.vocabulary) for case in cases],
        "kept": cases[0].kept,
        "p50_ms": [float(1000 * np.median(each)) for each in times],
        "longer": [ratios(each, times[0]) for each in times[1:]],
    }


def alternate(ways: Mapping[str, Callable[[], None]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each way in each round; which one starts changes from round to round."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds):
        for name in _rotated(list(ways), number):
            started = time.perf_counter()
            ways[name]()
            times[name].append(time.perf_counter() - started)
    return times


def percentiles(times: Sequence[float]) -> dict[str, float]:
    """The minimum, and the 50th, 90th and 99th percentile, interpolated between runs where there are few."""
    values = np.percentile(times, [50, 90, 99])
    named = {f"p{percent}_ms": float(value) for percent, value in zip((50, 90, 99), values, strict=True)}
    return {"min_ms": float(np.min(times))} | named


def ratios(slow: Sequence[float], fast: Sequence[float]) -> dict[str, Any]:
    """How many times longer `slow` took than `fast`: by medians, by minima, and quartiles over the rounds.

    Both have one time for each round, taken one after the other, so that other processes slow both.
    The ratio of the minima is the one that other processes disturb least.
    """
    by_round = np.asarray(slow) / np.asarray(fast)
    lower, middle, upper = (float(value) for value in np.percentile(by_round, [25, 50, 75]))
    return {
        "of_medians": float(np.median(slow) / np.median(fast)),
        "of_minima": float(np.min(slow) / np.min(fast)),
        "q1": lower,
        "median": middle,
        "q3": upper,
    }


def _ratios_to_ours(times: Mapping[str, CandidateTimes]) -> dict[str, dict[str, Any]]:
    """By candidate and group of steps, how many times longer it took than ours."""
    mine = times.get(OURS)
    if mine is None:
        return {}
    by_candidate: dict[str, dict[str, Any]] = {}
    for name, other in times.items():
        if name == OURS:
            continue
        by_candidate[name] = {}
        for group in ("whole", *GROUPS):
            slow, fast = other.group(group), mine.group(group)
            if slow and fast:
                by_candidate[name][group] = ratios(slow, fast)
    return by_candidate
