"""The latency benchmark: the candidates opened, a row for each vocabulary and kept count."""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
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
from .candidates import MONOLITHIC, OURS, Candidate, Subject, open_candidate, ours, random_vocabulary
from .memory import measure_alone
from .rounds import FAILURES, REAL, Case, Report, compare, images_per_second, scene_images


@dataclass(frozen=True)
class Plan:
    """What to measure.

    Attributes:
        sizes: of the vocabularies.
        kept: what each row keeps: numbers, "all", "real".
        against: other candidates, of `AGAINST`.
        rounds: of alternating runs in each row.
        images: how many different ones.
        image_size: their side in pixels; None is the network's.
        streamed: images to stream for images per second, once for each vocabulary; 0 leaves it out.
        all_up_to: the largest vocabulary for the row "all", whose memory grows with it; None is any.
        alone: whether each candidate also runs in a process of its own, once for each vocabulary.
    """

    sizes: Sequence[int]
    kept: Sequence[str]
    against: Sequence[str]
    rounds: int
    images: int = 3
    image_size: int | None = None
    streamed: int = 8
    all_up_to: int | None = None
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


def measure_latency(subject: Subject, plan: Plan, report: Report) -> dict[str, Any]:
    """The content of the results file.

    Raises:
        InputError: the bundle cannot be opened, the checkpoint is missing or not the bundle's, or no kept
            count fits a vocabulary.
    """
    if not any(map(plan.kept_of, plan.sizes)):
        raise InputError(
            f"--kept: {','.join(plan.kept)} leaves no row for vocabularies of "
            f"{', '.join(map(str, plan.sizes))}; give counts below the size of a vocabulary, real, or all "
            "with an --all-up-to of that size"
        )
    _check_checkpoint(Bundle.open(subject.bundle), subject.checkpoint, plan.against)
    segmenter = Segmenter(subject.bundle, subject.backend, subject.threads)
    if subject.device == "auto":
        subject = replace(subject, device="cpu" if segmenter.backend in CPU_BACKENDS else "cuda")
    manifest = segmenter.bundle.manifest
    size = plan.image_size or manifest.image_size
    started = CpuTimes.now()
    rows = []
    with _open_candidates(subject, plan, segmenter, size, report) as (subject, candidates, skipped):
        for count in plan.sizes:
            rows_kept = plan.kept_of(count)
            vocabularies = {
                real: _vocabulary(segmenter, count, real, report)
                for real in {kept == REAL for kept in rows_kept}
            }
            for position, kept in enumerate(rows_kept):
                case = Case(vocabularies[kept == REAL], kept, scene_images(plan.images, size))
                row = compare(case, segmenter, candidates, plan.rounds, report)
                if position == 0:
                    row |= _once(case, segmenter, subject, [*row["candidates"]], plan, report)
                rows.append(row)
        descriptions = {each.name: [each.runs_on, each.precision] for each in candidates}
    return {
        **setting(),
        "other_load": other_load_since(started),
        "preset": manifest.preset,
        "precision": manifest.precision,
        "backend": segmenter.backend,
        "image_size": size,
        "threads": subject.threads,
        "rounds": plan.rounds,
        "candidates": descriptions,
        "skipped": skipped,
        "results": rows,
    }


def _check_checkpoint(bundle: Bundle, checkpoint: str | None, against: Sequence[str]) -> None:
    """Refuse baselines without the weights of the bundle.

    Raises:
        InputError: no checkpoint is given and one is needed, or it is another one.
    """
    if not against:
        return
    expected = bundle.manifest.checkpoint
    advice = "or measure the bundle alone with --against none"
    if checkpoint is None:
        raise InputError(
            f"--against: runs {', '.join(against)} with the weights of {bundle.path}; "
            f"name {expected['file']}, which it was exported from, with --checkpoint, {advice}"
        )
    if not is_file(Path(checkpoint)):
        raise InputError(f"{checkpoint}: no such file; give the checkpoint {expected['file']}, {advice}")
    if file_record(Path(checkpoint)).sha256 != expected["sha256"]:
        raise InputError(
            f"{checkpoint}: is not what {bundle.path} was exported from ({expected['file']}, sha256 "
            f"{expected['sha256'][:12]}…), so labels would differ; give that one, {advice}"
        )


@contextmanager
def _open_candidates(
    subject: Subject, plan: Plan, segmenter: Segmenter, size: int, report: Report
) -> Iterator[tuple[Subject, list[Candidate], dict[str, str]]]:
    """The candidates that can run here, and why the others cannot."""
    candidates, skipped = [ours(segmenter)], {}
    with tempfile.TemporaryDirectory(prefix="sed-trt-bench-") as folder:
        for done, name in enumerate(plan.against):
            report(f"opening {name}", done, len(plan.against))
            try:
                if name == MONOLITHIC:
                    subject = replace(subject, monolithic=_export_monolithic(subject, size, Path(folder)))
                candidates.append(open_candidate(name, subject))
            except FAILURES as error:
                skipped[name] = one_line(error)
        yield subject, candidates, skipped


def _export_monolithic(subject: Subject, size: int, folder: Path) -> str:
    """Write the graph of the candidate `MONOLITHIC`; gives its path."""
    from ...model import SED
    from ..baselines import export_monolithic

    assert subject.checkpoint is not None
    file = folder / "monolithic.onnx"
    export_monolithic(SED.from_checkpoint(subject.checkpoint), size, file)
    return str(file)


def _vocabulary(segmenter: Segmenter, count: int, real: bool, report: Report) -> Vocabulary:
    """The first names of the scenes' own, embedded, or names with random embeddings."""
    if not real:
        return random_vocabulary(segmenter.bundle.manifest, count)
    names = VOCABULARY[:count] if count <= len(VOCABULARY) else longer_vocabulary(count)
    return segmenter.vocabulary(names, lambda done, total: report(f"embedding {count} names", done, total))


def _once(
    case: Case, segmenter: Segmenter, subject: Subject, names: Sequence[str], plan: Plan, report: Report
) -> dict[str, Any]:
    """The measurements made once for each vocabulary: images per second, and each candidate on its own."""
    record: dict[str, Any] = {}
    if plan.streamed:
        report(f"{case.title}: stream", 0, 1)
        try:
            record["images_per_second"] = images_per_second(case, segmenter, plan.streamed)
        except FAILURES as error:
            record["stream_error"] = one_line(error)
    if plan.alone:
        sets = case.sets(segmenter)[0]
        alone: dict[str, dict[str, Any]] = {}
        for done, name in enumerate(names):
            report(f"{case.title}: {name} in a process of its own", done, len(names))
            alone[name] = measure_alone(name, subject, case.vocabulary, case.images[0], sets)
        record["alone"] = alone
        # Peak host memory of ours as a share of each other candidate's.
        mine = alone.get(OURS, {}).get("peak_mib")
        if mine is not None:
            record["memory_ratio"] = {
                name: mine / other["peak_mib"]
                for name, other in alone.items()
                if name != OURS and "peak_mib" in other
            }
    return record
