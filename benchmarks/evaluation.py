"""The evaluations behind `sed-trt evaluate`: each gives the content of its results file."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..engines.backends import open_engines
from ..errors import InputError
from ..paths import is_folder
from ..runtime import Rejection
from ..train.scenes import VOCABULARY, make_scene
from .predictors import Source, open_source
from .scene_evaluation import compare_on_scenes, evaluate_scenes
from .stage_errors import StageErrors, worst_first

# Called with (what is being done, steps done, steps in all).
Report = Callable[[str, int, int], None]

SCENE_SIZE = 256
SCENES = "procedural scenes, split test, first seeds"
# Every picture on which the stages are compared one by one runs each stage twice more.
STAGE_SCENES = 5
WORST_TENSORS = 20


@dataclass(frozen=True)
class Task:
    """What to evaluate on.

    Attributes:
        vocabularies: lists of names, each starting with the scenes' own.
        policies: rejection policies by their text on the command line.
        scenes: how many test scenes.
        backend: of bundles; None is "auto".
        emulate: whether a half-precision bundle that only the CPU can run is rounded after every operator.
    """

    vocabularies: Sequence[Sequence[str]]
    policies: Mapping[str, Rejection]
    scenes: int
    backend: str | None = None
    emulate: bool = True


def measure(path: Path, task: Task, report: Report) -> dict[str, Any]:
    """mIoU of a checkpoint or bundle for every vocabulary and policy.

    Raises:
        InputError: it cannot be opened, or cannot run a policy.
    """
    rows = []
    with open_source(path, task.backend, task.emulate) as source:
        for names in task.vocabularies:
            predictors = source.with_names(names, _steps(report, f"embedding {len(names)} names"))
            for text, policy in task.policies.items():
                steps = _steps(report, f"{len(names)} categories, rejection {text}")
                rows.append(
                    evaluate_scenes(predictors(policy), task.scenes, len(names), text, SCENE_SIZE, steps)
                )
        return {
            "source": _description(source),
            "data": SCENES,
            "size": SCENE_SIZE,
            "results": [asdict(row) for row in rows],
        }


def compare(path: Path, against: Path, task: Task, report: Report) -> dict[str, Any]:
    """mIoU of two checkpoints or bundles on the same scenes, how far they agree, where their stages differ.

    The stages of two bundles are compared on the CPU, each on the inputs that the one of `against` was given.

    Raises:
        InputError: one cannot be opened, they are of different networks, or cannot run a policy.
    """
    rows = []
    with (
        open_source(path, task.backend, task.emulate) as source,
        open_source(against, task.backend, task.emulate) as reference,
    ):
        for names in task.vocabularies:
            ours, theirs = (
                each.with_names(names, _steps(report, f"embedding {len(names)} names"))
                for each in (source, reference)
            )
            for text, policy in task.policies.items():
                steps = _steps(report, f"{len(names)} categories, rejection {text}")
                rows.append(
                    compare_on_scenes(
                        ours(policy), theirs(policy), task.scenes, len(names), text, SCENE_SIZE, steps
                    )
                )
        return {
            "source": _description(source),
            "against": _description(reference),
            "data": SCENES,
            "size": SCENE_SIZE,
            "results": [asdict(row) for row in rows],
            "stages": _stage_errors(source, reference, task, report),
        }


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


def _stage_errors(source: Source, reference: Source, task: Task, report: Report) -> dict[str, Any] | None:
    """Errors of the stages, worst first; None where one of the two is no bundle that the CPU runs."""
    ours, theirs = source.segmenter, reference.segmenter
    if ours is None or theirs is None or {ours.backend, theirs.backend} != {"onnxruntime"}:
        return None
    collected = StageErrors(
        ours.bundle, open_engines(ours.bundle, ours.backend), open_engines(theirs.bundle, theirs.backend)
    )
    vocabulary = theirs.vocabulary(task.vocabularies[0])
    policy = next(iter(task.policies.values()))
    for seed in range(STAGE_SCENES):
        collected.add(make_scene(seed, SCENE_SIZE, split="test").image, vocabulary, policy)
        report("comparing stages", seed + 1, STAGE_SCENES)
    return {"scenes": STAGE_SCENES, "errors": [asdict(error) for error in worst_first(collected.errors())]}


def _description(source: Source) -> dict[str, str]:
    return {"name": source.name, "runs_on": source.runs_on, "precision": source.precision}


def _steps(report: Report, what: str) -> Callable[[int, int], None]:
    return lambda done, total: report(what, done, total)
