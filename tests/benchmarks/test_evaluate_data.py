"""`sed-trt evaluate --data` as a user meets it."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import jaccard_score

from sed_trt.benchmarks.accuracy.evaluate import evaluate_sets, open_sets
from sed_trt.benchmarks.accuracy.predictors import open_source
from sed_trt.benchmarks.accuracy.protocol import DATA
from sed_trt.benchmarks.accuracy.shards import ChosenImages
from sed_trt.benchmarks.report.pages import markdown_table
from sed_trt.cli.main import main
from sed_trt.cli.tables import show_evaluation
from sed_trt.errors import InputError
from sed_trt.runtime import TopK
from sed_trt.tests.fakes import dataset_layouts as layouts
from sed_trt.tests.fakes.given_set import no_report, stand_in_setup
from sed_trt.tests.fakes.own_data import IMAGES, evaluated, failed, names_of, write_own


def assert_figures(
    row: dict[str, Any], names: Sequence[str], truths: list[np.ndarray], given: list[np.ndarray]
) -> None:
    """The figures of a row are those of scikit-learn on these labels."""
    truth, predicted = (np.concatenate([labels.ravel() for labels in each]) for each in (truths, given))
    truth, predicted = truth[truth != 255], predicted[truth != 255]
    occurring = np.unique(truth)
    assert row["miou"] == pytest.approx(
        100 * jaccard_score(truth, predicted, labels=occurring, average="macro")
    )
    assert row["pixel_accuracy"] == pytest.approx(100 * np.mean(truth == predicted))
    categories = {category["name"]: category for category in row["per_category"]}
    assert list(categories) == list(names)
    for index, name in enumerate(names):
        pixels = int((truth == index).sum())
        assert categories[name]["pixels"] == pixels
        assert (categories[name]["iou"] is None) == (categories[name]["accuracy"] is None) == (pixels == 0)


def files_of(own: Path, kind: str, count: int) -> list[np.ndarray]:
    """The first images or labels of own data."""
    return [np.array(Image.open(own / kind / f"{index}.png")) for index in range(count)]


def test_figures_are_those_of_the_labels(own: Path, tmp_path: Path) -> None:
    names = names_of(own)

    def label(image: np.ndarray) -> np.ndarray:
        return image.astype(np.int64).sum(2) // 16 % len(names)

    sets, _ = open_sets([str(own)], None, None, None)
    setup = stand_in_setup(tmp_path, label, policies=("topk:8",))
    kind, content = evaluate_sets(setup, sets, {}, no_report)
    (row,) = content["results"]
    assert kind == "datasets"
    assert (row["data"], row["images"], row["of"]) == (str(own), IMAGES, IMAGES)
    assert row["categories"] == len(names)
    given = [label(image) for image in files_of(own, "images", IMAGES)]
    assert_figures(row, names, files_of(own, "labels", IMAGES), given)


def test_a_checkpoint_is_evaluated_by_its_own_labels(tiny_checkpoint: Path, tmp_path: Path) -> None:
    data = write_own(tmp_path / "two", 2)
    content = evaluated(
        tmp_path / "r.json", tiny_checkpoint, "--data", data, "-r", "topk:8", "--short-side", 0
    )
    names = names_of(data)
    with open_source(tiny_checkpoint) as source:
        predict = source.predictor(names, source.embed(names, None), [TopK(8)])
        given = [predict(image)[0].labels for image in files_of(data, "images", 2)]
    (row,) = content["results"]
    assert_figures(row, names, files_of(data, "labels", 2), given)


def test_checkpoint_and_bundle_agree_on_640(
    own: Path, tiny_checkpoint: Path, tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = evaluated(
        tmp_path / "r.json", tiny_bundle, "--against", tiny_checkpoint, "--data", own, "--limit", 4,
        "--max-drop", 0.05, "--per-category",
    )  # fmt: skip
    assert (content["kind"], content["short_side"]) == ("dataset-parity", 640)
    for row in content["results"]:
        assert abs(row["drop"]) < 0.05
        assert row["agreement"] > 99.9
        assert row["source"]["kept"] == pytest.approx(row["against"]["kept"], abs=0.5)
        assert row["source"]["images"] == 4
    printed = capsys.readouterr().out
    assert f"own: 4 of its {IMAGES} images" in printed
    assert "own, rejection none" in printed and names_of(own)[0] in printed


def without_network(folder: Path, sets: Sequence[ChosenImages], **changes: Any) -> tuple[str, dict[str, Any]]:
    """Kind and content of the results file of a source that needs no network."""
    setup = stand_in_setup(folder, lambda image: image[..., 0] % 2, **{"short_side": 640, **changes})
    kind, content = evaluate_sets(setup, sets, {}, no_report)
    return kind, json.loads(json.dumps(content))


def test_all_stands_beside_the_published_figures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    root = tmp_path / "sets"
    layouts.write_ade150(root, {"ADE_val_1": np.array([[0, 1, 150], [3, 3, 3]], np.uint8)})
    layouts.write_voc(root, {"2007_000001": np.array([[0, 1, 20], [255, 0, 3]], np.uint8)})
    # Sets are looked for before anything is opened.
    assert main(["evaluate", "none.pth", "--data", "all", "--root", str(root)]) == 2
    stderr = capsys.readouterr().err
    sets, missing = open_sets(["all"], None, root, None)
    assert set(missing) == {"ade847", "pc459", "pc59", "coco-stuff"}
    assert "ADE20K_2021_17_01" in missing["ade847"]
    for reason in missing.values():
        assert stderr.count(f"skipped {reason}\n") == 1
    kind, content = without_network(tmp_path, sets, policies=("topk:8", "none"))
    assert [(row["data"], row["rejection"]) for row in content["results"]] == [
        (name, policy) for name in ("ade150", "voc20", "voc20b") for policy in ("topk:8", "none")
    ]
    show_evaluation(kind, content)
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    table = [[cell.strip() for cell in line.split("│")] for line in lines]
    assert ["published sed-b", "topk:8", "11.4", "18.6", "31.6", "57.3", "94.4"] in table
    assert ["published sed-l", "none", "13.7", "22.1", "35.3", "60.9", "96.1"] in table
    found = {row["data"]: f"{row['miou']:.1f}" for row in content["results"] if row["rejection"] == "none"}
    assert ["sed-b", "none", *(found.get(name, "-") for name in DATA)] in table
    # voc20b is labelled with 59 names.
    assert [row["categories"] for row in content["results"][::2]] == [150, 20, 59]


def test_nothing_there_is_an_error(
    own: Path,
    tiny_checkpoint: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("SED_DATASETS", raising=False)
    message = failed(capsys, tiny_checkpoint, "--data", "all", "--root", tmp_path)
    assert "--data all: no data set is there" in message and "VOCdevkit/VOC2012" in message
    for own_too in ((), ("--data", own)):
        message = failed(capsys, tiny_checkpoint, "--data", "all", *own_too)
        assert "$SED_DATASETS: is not set" in message
    message = failed(capsys, tiny_checkpoint, "--data", "pc59", "--root", tmp_path)
    assert "pc59" in message and "trainval_merged.json" in message


def test_a_broken_set_is_not_missing(
    tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    layouts.write_ade150(tmp_path, {"ADE_val_1": np.ones((2, 3), np.uint8)})
    layouts.write_voc(tmp_path, {"2007_000001": np.ones((2, 3), np.uint8)})
    for labels in (tmp_path / "ADEChallengeData2016").glob("annotations*/validation/ADE_val_1.png"):
        shutil.copy(labels, labels.with_stem("ADE_val_2"))
    message = failed(capsys, tiny_checkpoint, "--data", "all", "--root", tmp_path)
    assert "ade150" in message and "1 label file has no image" in message


def test_only_what_is_as_published_stands_beside_the_paper(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    labels = np.array([[0, 1], [1, 0]], np.uint8)
    write_two_names(tmp_path / "ade150")
    layouts.write_ade150(tmp_path / "sets", dict.fromkeys(("ADE_val_1", "ADE_val_2"), labels))
    ways: list[tuple[bool, str, int | None, dict[str, Any]]] = [
        (True, "ade150", None, {}),
        (False, "ade150", None, {"short_side": 512}),
        (False, "ade150", 1, {}),
        (False, "./ade150", None, {}),
    ]
    for as_published, data, limit, changes in ways:
        sets, _ = open_sets([data], None, tmp_path / "sets", limit)
        kind, content = without_network(tmp_path, sets, **changes)
        (row,) = content["results"]
        assert (row["data"], row["as_published"]) == ("ade150", as_published)
        assert row["published"] == (31.8 if as_published else None)
        show_evaluation(kind, content)
        assert ("published sed-b" in capsys.readouterr().out) == as_published


def write_two_names(folder: Path) -> None:
    """Own data of one image and two names."""
    for part in ("images", "labels"):
        (folder / part).mkdir(parents=True)
        Image.fromarray(np.array([[0, 1], [1, 0]], np.uint8)).save(folder / part / "a.png")
    (folder / "names.txt").write_text("sky\nroad\n")


def test_brackets_in_paths_are_no_markup(
    tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # The progress bar is drawn as on a terminal.
    monkeypatch.setenv("FORCE_COLOR", "1")
    data = tmp_path / "x[" / "y]" / "[b]"
    write_two_names(data)
    evaluated(tmp_path / "r.json", tiny_bundle, "--data", data, "-r", "none", "--per-category")
    assert "[b], rejection none" in capsys.readouterr().out


def test_without_a_labelled_pixel_there_is_no_score(tmp_path: Path) -> None:
    layouts.write_ade150(tmp_path, {"ADE_val_1": np.zeros((2, 3), np.uint8)})
    sets, _ = open_sets(["ade150"], None, tmp_path, None)
    with pytest.raises(InputError, match="none of its 1 images has a labelled pixel"):
        without_network(tmp_path, sets)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--limit", "3"], "--limit: is for data sets"),
        (["--per-category"], "--per-category: is for data sets"),
        (["--data", "scenes", "--data", "ade150"], "--data: scenes are evaluated alone"),
        (["--data", "OWN", "--vocabulary-size", "200"], "are for scenes"),
        (["--data", "OWN", "--scenes", "5"], "--scenes, --vocabulary-size and --layerwise: are for scenes"),
        (["--data", "OWN", "--data", "OWN"], "is given twice"),
        (["--data", "OWN", "--split", "test"], "split: 'test' is unknown"),
        (["--data", "OWN", "-r", "budget:9"], "bundle only"),
        (["--data", "OWN", "--short-side", "9000"], "short_side: 9000 pixels"),
    ],
)
def test_arguments_that_contradict(
    arguments: list[str], message: str, own: Path, tiny_checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [str(own) if argument == "OWN" else argument for argument in arguments]
    assert message in failed(capsys, tiny_checkpoint, *given)


SCORES = {
    "data": "coco-stuff",
    "split": "val",
    "images": 10,
    "of": 5000,
    "categories": 171,
    "rejection": "min-pixels:8:20",
    "miou": 61.24,
    "fwiou": 71.5,
    "pixel_accuracy": 88.3,
    "class_accuracy": 60.1,
    "kept": [847.0, 312.4, 25.6],
    "as_published": False,
    "published": None,
    "per_category": [{"name": "person [standing]", "iou": None, "accuracy": None, "pixels": 0}],
}
PARITY = {"source": SCORES, "against": SCORES, "drop": 0.014, "agreement": 99.987}


def test_tables_fit_into_80_columns(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    side = {"name": "bundle", "precision": "fp16", "runs_on": "onnxruntime"}
    published = SCORES | {"published": 31.8}
    show_evaluation("datasets", {"source": side, "presets": ["sed-b"], "results": [published]})
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert [cell.strip() for cell in lines[4].split("│")] == [
        "coco-stuff", "min-pixels:8:20", "61.2", "31.8", "71.5", "88.3", "60.1", "847→312→26"
    ]  # fmt: skip
    show_evaluation("dataset-parity", {"source": side, "against": side, "results": [PARITY]})
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert any("coco-stuff" in line and "+0.01" in line and "99.99" in line for line in lines)


def test_results_stand_in_reports() -> None:
    side = {"name": "bundle", "precision": "fp16", "runs_on": "onnxruntime"}
    whole = SCORES | {"images": 5000}
    content: dict[str, Any] = {"kind": "datasets", "source": side, "presets": ["sed-b"], "results": [whole]}
    header, _, row = markdown_table([content]).splitlines()
    assert "images" not in header and "published" not in header
    assert row == "| sed-b | coco-stuff | min-pixels:8:20 | 61.2 | 71.5 | 88.3 | 60.1 | 847→312→26 |"
    part = content | {"presets": ["sed-l"], "results": [SCORES | {"published": 31.8}]}
    table = markdown_table([content, part]).splitlines()
    assert table[-1].startswith("| sed-l | coco-stuff | 10 of 5000 | min-pixels:8:20 | 61.2 | 31.8 |")
    kind = {"kind": "dataset-parity", "against": side | {"precision": "fp32"}}
    parity = content | kind | {"results": [PARITY]}
    assert markdown_table([parity]).splitlines()[-1] == (
        "| sed-b | coco-stuff | 10 of 5000 | fp16 (onnxruntime) | fp32 (onnxruntime) | min-pixels:8:20 "
        "| 61.24 | 61.24 | +0.01 | 99.99 |"
    )
