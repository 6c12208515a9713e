"""The evaluations of `sed-trt evaluate`: sets of images are labelled, and the counts become results files."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from ...engines.backends import CPU_BACKENDS, open_engines
from ...errors import InputError
from ...train.datasets import NAMES, Dataset, MissingDataError, Scenes, open_dataset
from ...train.datasets.files import FileDataset
from ...train.scenes import HELD_OUT, INDEX, SEEN, VOCABULARY, longer_vocabulary, make_scene
from ..precision.stages import StageErrors
from .counts import Totals
from .labelling import Report, Setup, count_sets
from .predictors import BundleSource, EvaluationSource
from .protocol import DATA, SHORT_SIDE, published_miou
from .shards import ChosenImages

ALL = "all"
# Those with a published figure come first, in the order of its table.
SETS = (*DATA, *(name for name in NAMES if name not in (*DATA, "scenes")))
SCENE_SIZE = 256
# Every scene on which the stages are compared one by one runs each stage twice more.
STAGE_SCENES = 5


def open_sets(
    data: Sequence[str], split: str | None, root: Path | None, limit: int | None
) -> tuple[list[ChosenImages], dict[str, str]]:
    """The sets of these names or folders, and the reasons why sets of "all" are missing, by name.

    Args:
        data: names or folders; "all" stands for `SETS`.
        split: as for `open_dataset`.
        root: likewise.
        limit: images of each set; None is all.

    Raises:
        InputError: a set that is named, or there, cannot be opened, one is named twice, or "all" finds none.
    """
    twice = next((name for name in data if data.count(name) > 1), None)
    if twice is not None:
        raise InputError(f"--data: {twice} is given twice; name each set once")
    opened = {name: open_dataset(name, split, root) for name in data if name != ALL}
    missing: dict[str, str] = {}
    for name in SETS if ALL in data else ():
        if name in opened:
            continue
        try:
            opened[name] = open_dataset(name, split, root)
        except MissingDataError as error:
            missing[name] = str(error)
    if not opened:
        raise InputError(f"--data all: no data set is there; {'; '.join(missing.values())}")
    return [chosen_images(dataset, limit) for dataset in opened.values()], missing


def chosen_images(dataset: Dataset, limit: int | None) -> ChosenImages:
    """`limit` images spread evenly over a set; None is all."""
    length = len(dataset)
    if limit is None or limit >= length:
        return ChosenImages(dataset, range(length))
    return ChosenImages(dataset, [number * length // limit for number in range(limit)])


def scene_sets(sizes: Sequence[int] | None, scenes: int) -> list[ChosenImages]:
    """The first test scenes, once for each size of the vocabulary; None is the scenes' own vocabulary.

    Raises:
        InputError: a size is smaller than the scenes' own vocabulary, or too large.
    """
    try:
        vocabularies = [longer_vocabulary(size) for size in sizes or [len(VOCABULARY)]]
    except ValueError as error:
        raise InputError(f"--vocabulary-size: {error}") from error
    sets = (Scenes("test", scenes, SCENE_SIZE, names=names) for names in vocabularies)
    return [ChosenImages(dataset, range(scenes)) for dataset in sets]


def count_shard(setup: Setup, sets: Sequence[ChosenImages], report: Report) -> list[str]:
    """Count the share of the images that `setup.shard` names; gives a line for each set about its progress.

    Raises:
        InputError: as `count_sets`, or a source cannot be opened.
    """
    with ExitStack() as stack:
        counted = stack.enter_context(closing(count_sets(setup, setup.open(stack), sets, report)))
        return [
            f"{chosen.dataset.name}, {len(chosen.dataset.names)} categories: {int(counts.done.sum())} of "
            f"{len(counts.done)} images are counted"
            for chosen, counts in zip(sets, counted, strict=True)
        ]


def evaluate_sets(
    setup: Setup, sets: Sequence[ChosenImages], missing: dict[str, str], report: Report
) -> tuple[str, dict[str, Any]]:
    """Scores on data sets; the kind is "datasets", or "dataset-parity" where `setup` has two paths.

    `missing`, sets that were left out and why, is recorded in the content.

    Raises:
        InputError: as `count_sets`, a source cannot be opened, or no image of a set has a labelled pixel.
    """

    def scores(totals: Totals, policy: str, chosen: ChosenImages, source: EvaluationSource) -> dict[str, Any]:
        return dataset_scores(totals, policy, chosen, source.preset, setup.short_side)

    with ExitStack() as stack:
        sources = setup.open(stack)
        content = _descriptions(sources) | {
            "presets": [source.preset for source in sources],
            "short_side": setup.short_side,
            "missing": missing,
            "results": _rows(setup, sources, sets, scores, report),
        }
        return "datasets" if len(sources) == 1 else "dataset-parity", content


def evaluate_scenes(setup: Setup, sets: Sequence[ChosenImages], report: Report) -> tuple[str, dict[str, Any]]:
    """Scores on the sets of `scene_sets`; the kind is "scores", or "parity" where `setup` has two paths.

    Of two bundles that ONNX Runtime runs on the CPU the stages are compared too, on the reference's inputs.

    Raises:
        InputError: as `count_sets`, a source cannot be opened, or two are of different networks.
    """

    def scores(totals: Totals, policy: str, chosen: ChosenImages, source: EvaluationSource) -> dict[str, Any]:
        return scene_scores(totals, policy)

    with ExitStack() as stack:
        sources = setup.open(stack)
        content = _descriptions(sources) | {
            "data": "procedural scenes, split test, first seeds",
            "size": SCENE_SIZE,
            "results": _rows(setup, sources, sets, scores, report),
        }
        if len(sources) == 1:
            return "scores", content
        return "parity", content | {"stages": _stage_errors(setup, sources, sets[0].dataset.names, report)}


def _descriptions(sources: Sequence[EvaluationSource]) -> dict[str, Any]:
    """The entries of a results file that say what was evaluated."""
    return {side: source.description() for side, source in zip(("source", "against"), sources, strict=False)}


def _rows(
    setup: Setup,
    sources: Sequence[EvaluationSource],
    sets: Sequence[ChosenImages],
    score: Callable[[Totals, str, ChosenImages, EvaluationSource], dict[str, Any]],
    report: Report,
) -> list[dict[str, Any]]:
    """A row for each set and policy: the scores of the one source, or of two side by side.

    Rows of two hold "source", "against", "drop", the mIoU of the second less that of the first in percentage
    points, and "agreement", the pixel agreement in percent.
    """
    rows = []
    with closing(count_sets(setup, sources, sets, report)) as counted:
        for chosen, counts in zip(sets, counted, strict=True):
            for index, policy in enumerate(setup.policies):
                scores = [
                    score(totals, policy, chosen, source)
                    for totals, source in zip(counts.totals[index], sources, strict=True)
                ]
                if len(scores) == 1:
                    rows += scores
                    continue
                drop = scores[1]["miou"] - scores[0]["miou"]
                agreement = counts.agreement(index)
                rows.append({"source": scores[0], "against": scores[1], "drop": drop, "agreement": agreement})
    return rows


def scene_scores(totals: Totals, rejection: str) -> dict[str, Any]:
    """A row of a results file: what one source reaches on scenes under one policy.

    Figures are in percent; "kept" is the mean number of categories alive after each rejection point.
    "miou_seen" is over the categories of training, "miou_held_out" over colour-thing pairs it never saw.
    """
    confusion = totals.confusion
    return {
        "scenes": totals.images,
        "categories": len(confusion.counts),
        "rejection": rejection,
        "miou_seen": confusion.miou(INDEX[name] for name in SEEN),
        "miou_held_out": confusion.miou(INDEX[name] for name in HELD_OUT),
        "miou": confusion.miou(),
        "pixel_accuracy": confusion.pixel_accuracy(),
        "kept": totals.mean_kept(),
    }


def dataset_scores(
    totals: Totals, rejection: str, chosen: ChosenImages, preset: str, short_side: int | None
) -> dict[str, Any]:
    """A row of a results file: what a source of a preset reaches on a data set under one policy.

    Figures are in percent, see `Confusion`, and None where a category does not occur. "published" is the
    paper's mIoU, None unless "as_published": a whole published validation split with the published resize.

    Raises:
        InputError: no image has a labelled pixel.
    """
    dataset, confusion = chosen.dataset, totals.confusion
    if not confusion.counts.any():
        raise InputError(
            f"{dataset.name}, split {dataset.split}: none of its {totals.images} images has a labelled "
            "pixel; check the labels' values"
        )
    own = isinstance(dataset, FileDataset) and dataset.source.kind == "own"
    whole = totals.images == len(dataset) and dataset.split == "val"
    as_published = whole and not own and short_side == SHORT_SIDE
    iou = np.where(confusion.occurring(), confusion.iou(), np.nan)
    categories = zip(dataset.classes, iou, confusion.accuracy(), confusion.counts.sum(1), strict=True)
    return {
        "data": dataset.name,
        "split": dataset.split,
        "images": totals.images,
        "of": len(dataset),
        "categories": len(dataset.names),
        "rejection": rejection,
        "miou": confusion.miou(),
        "fwiou": confusion.fwiou(),
        "pixel_accuracy": confusion.pixel_accuracy(),
        "class_accuracy": confusion.mean_accuracy(),
        "kept": totals.mean_kept(),
        "as_published": as_published,
        "published": published_miou(preset, rejection, dataset.name) if as_published else None,
        "per_category": [
            {"name": name, "iou": _percent(iou), "accuracy": _percent(accuracy), "pixels": int(pixels)}
            for name, iou, accuracy, pixels in categories
        ],
    }


def _percent(share: float) -> float | None:
    return None if np.isnan(share) else float(100 * share)


def _stage_errors(
    setup: Setup, sources: Sequence[EvaluationSource], names: Sequence[str], report: Report
) -> dict[str, Any] | None:
    """Errors of the stages, worst first; None unless both sources are bundles that run on the CPU.

    ONNX Runtime runs both, so that the errors are those of the graphs; it has no bfloat16.
    """
    segmenters = [source.segmenter for source in sources if isinstance(source, BundleSource)]
    if [segmenter.backend in CPU_BACKENDS for segmenter in segmenters] != [True, True]:
        return None
    ours, reference = (segmenter.bundle for segmenter in segmenters)
    if "bf16" in (ours.manifest.precision, reference.manifest.precision):
        return None
    errors = StageErrors(ours, *(open_engines(bundle, "onnxruntime") for bundle in (ours, reference)))
    vocabulary = segmenters[1].vocabulary(names)
    policy = next(iter(setup.policies.values()))
    for seed in range(STAGE_SCENES):
        errors.add(make_scene(seed, SCENE_SIZE, split="test").image, vocabulary, policy)
        report("comparing stages", seed + 1, STAGE_SCENES)
    return {"scenes": STAGE_SCENES, "errors": [asdict(error) for error in errors.worst_first()]}
