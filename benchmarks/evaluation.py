"""The evaluations of `sed-trt evaluate` on procedural scenes: each gives the content of its results file."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..engines.backends import open_engines
from ..errors import InputError
from ..paths import is_folder
from ..train.datasets import Scenes
from ..train.scenes import VOCABULARY, make_scene
from .count_pictures import Report, count_sets
from .picture_counter import Setup
from .predictors import Source, description
from .scene_evaluation import scene_parity, scene_scores
from .set_counts import SetCounts
from .stage_errors import StageErrors, worst_first

SCENE_SIZE = 256
SCENES = "procedural scenes, split test, first seeds"
# Every picture on which the stages are compared one by one runs each stage twice more.
STAGE_SCENES = 5
WORST_TENSORS = 20


def measure(
    setup: Setup, vocabularies: Sequence[Sequence[str]], scenes: int, report: Report
) -> dict[str, Any]:
    """mIoU of a checkpoint or bundle on test scenes for every vocabulary and policy.

    Args:
        setup: what labels, and how.
        vocabularies: lists of names, each starting with the scenes' own.
        scenes: how many.
        report: called after every scene.

    Raises:
        InputError: it cannot be opened, or cannot run a policy.
    """
    with ExitStack() as stack:
        sources = setup.open(stack)
        counted = _counted(setup, sources, vocabularies, scenes, report)
        return {
            "source": description(sources[0]),
            "data": SCENES,
            "size": SCENE_SIZE,
            "results": [
                asdict(scene_scores(totals, rejection))
                for counts in counted
                for (totals,), rejection in zip(counts.totals, setup.policies, strict=True)
            ],
        }


def compare(
    setup: Setup, vocabularies: Sequence[Sequence[str]], scenes: int, report: Report
) -> dict[str, Any]:
    """mIoU of two checkpoints or bundles on the same scenes, how far they agree, where their stages differ.

    The stages of two bundles are compared on the CPU, each on the inputs that the reference's was given.
    Arguments are those of `measure`.

    Raises:
        InputError: one cannot be opened, they are of different networks, or cannot run a policy.
    """
    with ExitStack() as stack:
        sources = setup.open(stack)
        counted = _counted(setup, sources, vocabularies, scenes, report)
        return {
            "source": description(sources[0]),
            "against": description(sources[1]),
            "data": SCENES,
            "size": SCENE_SIZE,
            "results": [
                asdict(scene_parity(counts, policy, rejection))
                for counts in counted
                for policy, rejection in enumerate(setup.policies)
            ],
            "stages": _stage_errors(sources, setup, vocabularies[0], report),
        }


def _counted(
    setup: Setup,
    sources: Sequence[Source],
    vocabularies: Sequence[Sequence[str]],
    scenes: int,
    report: Report,
) -> list[SetCounts]:
    sets = [(Scenes("test", scenes, SCENE_SIZE, names=names), range(scenes)) for names in vocabularies]
    return list(count_sets(setup, sources, sets, report))


def name_worst(path: Path, precision: str, report: Report) -> dict[str, Any]:
    """The tensors of a checkpoint that lose most in "fp16" or "bf16", and what each FP32 island is worth.

    Raises:
        InputError: the path is no checkpoint, or the precision is neither of the two.
    """
    from ..model import SED
    from .layerwise import island_worths, tensor_errors

    if precision not in ("fp16", "bf16"):
        raise InputError(f"--layerwise: {precision!r} is unknown; choose fp16 or bf16")
    if is_folder(path):
        raise InputError(f"{path}: is a folder; --layerwise looks into a checkpoint file")
    model = SED.from_checkpoint(path)
    worst = tensor_errors(model, precision, VOCABULARY, progress=_steps(report, "comparing tensors"))
    worths = island_worths(model, precision, VOCABULARY, _steps(report, "leaving out islands"))
    return {
        "source": {"name": path.name, "runs_on": "PyTorch", "precision": precision},
        "data": "the verification photo",
        "categories": len(VOCABULARY),
        "tensors": [asdict(error) for error in worst[:WORST_TENSORS]],
        "islands": [asdict(worth) for worth in worths],
    }


def _stage_errors(
    sources: Sequence[Source], setup: Setup, names: Sequence[str], report: Report
) -> dict[str, Any] | None:
    """Errors of the stages, worst first; None where one of the two is no bundle that the CPU runs."""
    ours, theirs = (source.segmenter for source in sources)
    if ours is None or theirs is None or {ours.backend, theirs.backend} != {"onnxruntime"}:
        return None
    collected = StageErrors(
        ours.bundle, open_engines(ours.bundle, ours.backend), open_engines(theirs.bundle, theirs.backend)
    )
    vocabulary = theirs.vocabulary(names)
    policy = next(iter(setup.policies.values()))
    for seed in range(STAGE_SCENES):
        collected.add(make_scene(seed, SCENE_SIZE, split="test").image, vocabulary, policy)
        report("comparing stages", seed + 1, STAGE_SCENES)
    return {"scenes": STAGE_SCENES, "errors": [asdict(error) for error in worst_first(collected.errors())]}


def _steps(report: Report, what: str) -> Callable[[int, int], None]:
    return lambda done, total: report(what, done, total)
