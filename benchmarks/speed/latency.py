"""The latency benchmark: the candidates opened, a row for each vocabulary, kept count and bundle."""

import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ...bundle import Bundle, file_record
from ...engines.backends import CPU_BACKENDS
from ...errors import InputError
from ...files import is_file
from ...runtime import Segmenter, Vocabulary
from ...train.scenes import VOCABULARY, longer_vocabulary
from ..results_file import CpuTimes, one_line, other_load_since, setting
from .candidates import BASELINES, ONE_GRAPH, OURS, Candidate, Subject, ours, random_vocabulary
from .memory import measure_alone
from .opening import BaselineOpener, by_default, export_one_graph
from .rounds import (
    FAILURES,
    REAL,
    Case,
    Report,
    compare,
    compare_sizes,
    compare_streams,
    scene_images,
)

# Rounds of the streams, each of which takes as long as many images.
STREAM_ROUNDS = 5


@dataclass(frozen=True)
class Plan:
    """What to measure.

    Attributes:
        sizes: of the vocabularies.
        kept: what each row keeps: numbers, "all", "real".
        against: baselines, of `BASELINES`; None is all that gain something on this machine.
        rounds: of alternating runs in each row.
        images: how many different ones.
        image_size: their side in pixels; None is the network's.
        streamed: images to stream for images per second, once for each vocabulary; 0 leaves it out.
        images_at_once: of another stream on the CPU, whose images are labelled side by side; 1 leaves it out.
        all_up_to: the largest vocabulary for the row "all", whose memory grows with it; None is any.
        growth: sizes of vocabularies of which ours alone are timed in turn, from the one that the others are
            compared with; empty leaves it out.
        alone: whether each candidate also runs in a process of its own, once for each vocabulary.
    """

    sizes: Sequence[int]
    kept: Sequence[str]
    against: Sequence[str] | None
    rounds: int
    images: int = 3
    image_size: int | None = None
    streamed: int = 8
    images_at_once: int = 1
    all_up_to: int | None = None
    growth: Sequence[int] = ()
    alone: bool = True

    def kept_of(self, categories: int) -> list[str]:
        """What the rows of a vocabulary of `categories` keep."""
        too_large = self.all_up_to is not None and categories > self.all_up_to
        # A number that does not reject any of them would be the row "all" again.
        return [
            kept
            for kept in self.kept
            if not (kept.isdigit() and int(kept) >= categories) and not (kept == "all" and too_large)
        ]

    def kept_count(self) -> str | None:
        """The first number among what the rows keep; None where there is none."""
        return next(filter(str.isdigit, self.kept), None)


@dataclass(frozen=True, eq=False)
class Mine:
    """A bundle on a backend.

    Attributes:
        subject: what was asked for.
        segmenter: that runs it.
        candidate: the same among the others.
    """

    subject: Subject
    segmenter: Segmenter
    candidate: Candidate

    def description(self) -> dict[str, str]:
        """The entries of a row that say which one it is of."""
        manifest = self.segmenter.bundle.manifest
        return {
            "bundle": self.segmenter.bundle.path.name,
            "precision": manifest.precision,
            "backend": self.segmenter.backend,
        }


def measure_latency(subjects: Sequence[Subject], plan: Plan, report: Report) -> dict[str, Any]:
    """The content of the results file.

    Args:
        subjects: bundles of one checkpoint, each on a backend; all but the first may be unable to run here.
            The baselines run as the first one says.
        plan: what to measure.
        report: see `Report`.

    Raises:
        InputError: no bundle can be opened, the checkpoint is missing or not that of the bundles, or no kept
            count fits a vocabulary.
    """
    if not any(map(plan.kept_of, plan.sizes)):
        raise InputError(
            f"--kept: {','.join(plan.kept)} leaves no row for vocabularies of "
            f"{', '.join(map(str, plan.sizes))}; give counts below the size of a vocabulary, real, or all "
            "with an --all-up-to of that size"
        )
    if plan.growth and plan.kept_count() is None:
        raise InputError(
            f"--growth: forces a number of categories, and --kept {','.join(plan.kept)} has none"
        )
    bundles = [Bundle.open(path) for path in dict.fromkeys(subject.bundle for subject in subjects)]
    _check_checkpoint(bundles, subjects[0].checkpoint, plan.against)
    mine, skipped = _open_bundles(subjects)
    subject = mine[0].subject
    if subject.device == "auto":
        on_cpu = all(each.segmenter.backend in CPU_BACKENDS for each in mine)
        subject = replace(subject, device="cpu" if on_cpu else "cuda")
    against: Sequence[str] = () if plan.against is None else plan.against
    if plan.against is None and subject.checkpoint is not None:
        against, without_gain = by_default(subject.device)
        skipped |= without_gain
    manifest = mine[0].segmenter.bundle.manifest
    size = plan.image_size or manifest.image_size
    started = CpuTimes.now()
    with tempfile.TemporaryDirectory(prefix="sed-trt-bench-") as folder:
        subject, baselines, failed = _open_baselines(subject, against, size, Path(folder), report)
        candidates = [each.candidate for each in mine] + baselines
        rows = list(_rows(mine, subject, candidates, plan, size, report))
        growth = list(_growth(mine, plan, size, report))
    precisions, backends = ({each.description()[key] for each in mine} for key in ("precision", "backend"))
    return {
        **setting(),
        "other_load": other_load_since(started),
        "preset": manifest.preset,
        "precision": _only(precisions),
        "backend": _only(backends),
        "image_size": size,
        "threads": subject.threads,
        "cuda_graphs": subject.cuda_graphs,
        "rounds": plan.rounds,
        "candidates": {each.name: [each.runs_on, each.precision] for each in candidates},
        "skipped": skipped | failed,
        "results": rows,
        "growth": growth,
    }


def _only(values: set[str]) -> str | None:
    """The value that all bundles have; None where they differ, and rows say which."""
    return next(iter(values)) if len(values) == 1 else None


def _rows(
    mine: Sequence[Mine],
    subject: Subject,
    candidates: Sequence[Candidate],
    plan: Plan,
    size: int,
    report: Report,
) -> Iterable[dict[str, Any]]:
    """A row for each vocabulary, kept count and bundle; those of a vocabulary and count share the rounds."""
    segmenter = mine[0].segmenter
    for count in plan.sizes:
        rows_kept = plan.kept_of(count)
        vocabularies = {
            real: _vocabulary(segmenter, count, real, report) for real in {kept == REAL for kept in rows_kept}
        }
        for position, kept in enumerate(rows_kept):
            case = Case(vocabularies[kept == REAL], kept, scene_images(plan.images, size))
            compared = compare(case, segmenter, candidates, plan.rounds, report)
            rows = [each.description() | compared.row(each.candidate.name) for each in mine]
            if position == 0:
                _add_streams(rows, mine, case, plan, report)
                if plan.alone:
                    _add_alone(rows, mine, subject, case, report)
            yield from rows


def _growth(mine: Sequence[Mine], plan: Plan, size: int, report: Report) -> Iterable[dict[str, Any]]:
    """A row for each bundle: its times with vocabularies of the sizes `Plan.growth`."""
    kept = plan.kept_count()
    if not plan.growth or kept is None:
        return
    images = scene_images(1, size)
    manifest = mine[0].segmenter.bundle.manifest
    cases = [Case(random_vocabulary(manifest, count), kept, images) for count in plan.growth]
    for done, each in enumerate(mine):
        report(f"{' and '.join(map(str, plan.growth))} categories in turn", done, len(mine))
        try:
            yield each.description() | compare_sizes(cases, each.segmenter, plan.rounds)
        except FAILURES as error:
            yield each.description() | {"categories": list(plan.growth), "error": one_line(error)}


def _open_bundles(subjects: Sequence[Subject]) -> tuple[list[Mine], dict[str, str]]:
    """The bundles that can run here, and why the others cannot.

    Raises:
        InputError: none can.
    """
    mine: list[Mine] = []
    skipped: dict[str, str] = {}
    for subject in subjects:
        name = OURS if len(subjects) == 1 else f"{OURS}, {subject.bundle}, {subject.backend}"
        try:
            segmenter = Segmenter(
                subject.bundle, subject.backend, subject.threads, cuda_graphs=subject.cuda_graphs
            )
        except InputError as error:
            if len(subjects) == 1:
                raise
            skipped[name] = one_line(error)
            continue
        mine.append(Mine(subject, segmenter, ours(segmenter, name)))
    if not mine:
        raise InputError("; ".join(skipped.values()))
    return mine, skipped


def _check_checkpoint(
    bundles: Sequence[Bundle], checkpoint: str | None, against: Sequence[str] | None
) -> None:
    """Refuse bundles of several checkpoints, and baselines without the weights of the bundles.

    Raises:
        InputError: the bundles are of several checkpoints, or no checkpoint is given and one is needed, or it
            is another one.
    """
    expected = bundles[0].manifest.checkpoint
    for other in bundles[1:]:
        if other.manifest.checkpoint["sha256"] != expected["sha256"]:
            raise InputError(
                f"{other.path}: was exported from {other.manifest.checkpoint['file']}, not from "
                f"{expected['file']} as {bundles[0].path}; give bundles of one checkpoint"
            )
    if not against and (against is not None or checkpoint is None):
        return
    advice = "or measure the bundle alone with --against none"
    if checkpoint is None:
        raise InputError(
            f"--against: runs {', '.join(against or BASELINES)} with the weights of {bundles[0].path}; "
            f"name {expected['file']}, which it was exported from, with --checkpoint, {advice}"
        )
    if not is_file(Path(checkpoint)):
        raise InputError(f"{checkpoint}: no such file; give the checkpoint {expected['file']}, {advice}")
    if file_record(Path(checkpoint)).sha256 != expected["sha256"]:
        raise InputError(
            f"{checkpoint}: is not what {bundles[0].path} was exported from ({expected['file']}, sha256 "
            f"{expected['sha256'][:12]}…), so labels would differ; give that one, {advice}"
        )


def _open_baselines(
    subject: Subject, names: Sequence[str], size: int, folder: Path, report: Report
) -> tuple[Subject, list[Candidate], dict[str, str]]:
    """The baselines that can run here, why the others cannot, and the subject with the graph in `folder`."""
    candidates: list[Candidate] = []
    skipped: dict[str, str] = {}
    if any(BASELINES[name].mode == ONE_GRAPH for name in names):
        assert subject.checkpoint is not None
        report("exporting one graph", 0, len(names))
        subject = replace(subject, one_graph=export_one_graph(subject.checkpoint, size, folder))
    opener = BaselineOpener(subject)
    for done, name in enumerate(names):
        report(f"opening {name}", done, len(names))
        try:
            candidates.append(opener.open(name))
        except FAILURES as error:
            skipped[name] = one_line(error)
    return subject, candidates, skipped


def _vocabulary(segmenter: Segmenter, count: int, real: bool, report: Report) -> Vocabulary:
    """The first names of the scenes' own, embedded, or names with random embeddings."""
    if not real:
        return random_vocabulary(segmenter.bundle.manifest, count)
    names = VOCABULARY[:count] if count <= len(VOCABULARY) else longer_vocabulary(count)
    return segmenter.vocabulary(names, lambda done, total: report(f"embedding {count} names", done, total))


def _add_streams(
    rows: Sequence[dict[str, Any]], mine: Sequence[Mine], case: Case, plan: Plan, report: Report
) -> None:
    """Add to the row of each bundle its images per second."""
    if not plan.streamed:
        return
    rounds = min(plan.rounds, STREAM_ROUNDS)
    for done, (row, each) in enumerate(zip(rows, mine, strict=True)):
        report(f"{case.title}: stream", done, len(mine))
        try:
            side_by_side = None
            if plan.images_at_once > 1 and each.segmenter.backend in CPU_BACKENDS:
                side_by_side = Segmenter(
                    each.subject.bundle,
                    each.segmenter.backend,
                    each.subject.threads,
                    images_at_once=plan.images_at_once,
                )
                row["images_at_once"] = plan.images_at_once
            row |= compare_streams(case, each.segmenter, plan.streamed, rounds, side_by_side)
        except FAILURES as error:
            row["stream_error"] = one_line(error)


def _add_alone(
    rows: Sequence[dict[str, Any]], mine: Sequence[Mine], subject: Subject, case: Case, report: Report
) -> None:
    """Add to the row of each bundle what it and the baselines take in a process of their own."""
    sets = case.sets(mine[0].segmenter)[0]

    def alone(name: str, of: Subject) -> dict[str, Any]:
        report(f"{case.title}: {name} in a process of its own", 0, 1)
        return measure_alone(name, of, case.vocabulary, case.images[0], sets)

    # Rows share their baselines; ours is in a row if it ran.
    names = {name: None for row in rows for name in row["candidates"] if name != OURS}
    baselines = {name: alone(name, subject) for name in names}
    for row, each in zip(rows, mine, strict=True):
        own = alone(OURS, each.subject) if OURS in row["candidates"] else {}
        row["alone"] = ({OURS: own} if own else {}) | baselines
        row["memory_ratio"] = _memory_ratios(own, baselines)


def _memory_ratios(own: Mapping[str, Any], baselines: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """Peak host memory of ours as a share of each baseline's, where both are known."""
    if "peak_mib" not in own:
        return {}
    return {
        name: own["peak_mib"] / other["peak_mib"] for name, other in baselines.items() if "peak_mib" in other
    }
