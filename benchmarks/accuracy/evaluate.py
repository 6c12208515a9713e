"""The evaluations of `sed-trt evaluate` on procedural scenes: each gives the content of its results file."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...engines.backends import open_engines
from ...errors import InputError
from ...files import is_folder
from ...train.datasets import Scenes
from ...train.scenes import HELD_OUT, INDEX, SEEN, VOCABULARY, make_scene
from ..precision.stages import StageErrors, worst_first
from .count_pictures import Report, count_sets
from .counts import Labelled, SetCounts, Totals
from .parity import Parity
from .picture_counter import Setup
from .predictors import Prediction, Source, description


@dataclass(frozen=True)
class SceneScores:
    """What one predictor reached.

    Attributes:
        scenes: how many were labelled.
        categories: size of the vocabulary it chose from.
        rejection: the policy, as on the command line.
        miou_seen: percent, over the categories of training.
        miou_held_out: percent, over the colour-thing pairs training never saw.
        miou: percent, over all that occur.
        pixel_accuracy: percent.
        kept: mean number of categories alive after each rejection point.
    """

    scenes: int
    categories: int
    rejection: str
    miou_seen: float
    miou_held_out: float
    miou: float
    pixel_accuracy: float
    kept: tuple[float, ...]


class Tally:
    """Counts of one predictor over the scenes."""

    def __init__(self, categories: int, rejection: str) -> None:
        self._rejection = rejection
        self._totals = Totals(categories)
        self._names = np.arange(categories)

    def add(self, labels: np.ndarray, prediction: Prediction) -> None:
        """Count one scene: its true labels and what the predictor gave."""
        self._totals.add(Labelled.of(labels, prediction, self._names, len(self._names)))

    def scores(self) -> SceneScores:
        """The scores of all scenes added."""
        return scene_scores(self._totals, self._rejection)


def scene_scores(totals: Totals, rejection: str) -> SceneScores:
    """The scores of what was counted over scenes; `rejection` is recorded in them."""
    confusion = totals.confusion
    return SceneScores(
        scenes=totals.pictures,
        categories=len(confusion.counts),
        rejection=rejection,
        miou_seen=confusion.miou(INDEX[name] for name in SEEN),
        miou_held_out=confusion.miou(INDEX[name] for name in HELD_OUT),
        miou=confusion.miou(),
        pixel_accuracy=confusion.pixel_accuracy(),
        kept=totals.mean_kept(),
    )


def scene_parity(counts: SetCounts, policy: int, rejection: str) -> Parity[SceneScores]:
    """Two sources on the same scenes, under the policy at this place."""
    scores = [scene_scores(totals, rejection) for totals in counts.totals[policy]]
    return Parity.of(scores, counts.agreement(policy))


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
    from ...model import SED
    from ..precision.layerwise import island_worths, tensor_errors

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
