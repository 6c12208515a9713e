"""`sed-trt evaluate --data` as a user meets it."""

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import jaccard_score

from sed_trt.benchmarks.accuracy.datasets import CategoryScore, DatasetScores
from sed_trt.benchmarks.accuracy.parity import Parity
from sed_trt.benchmarks.accuracy.predictors import open_source
from sed_trt.benchmarks.accuracy.protocol import DATA
from sed_trt.benchmarks.report.tables import markdown_table
from sed_trt.cli.tables import show_evaluation
from sed_trt.runtime import TopK
from sed_trt.tests.fakes import dataset_layouts as layouts
from sed_trt.tests.fakes.own_data import PICTURES, evaluated, failed, names_of


def test_figures_are_those_of_the_labels(own: Path, tiny_checkpoint: Path, tmp_path: Path) -> None:
    content = evaluated(
        tmp_path / "r.json", tiny_checkpoint, "--data", own, "-r", "topk:8", "--short-side", 0
    )
    (row,) = content["results"]
    assert content["kind"] == "datasets"
    names = names_of(own)
    assert (row["data"], row["pictures"], row["of"]) == (str(own), PICTURES, PICTURES)
    assert row["categories"] == len(names)
    truths, given = [], []
    with open_source(tiny_checkpoint) as source:
        predict = source.with_text(names, source.embed(names, None), [TopK(8)])
        for index in range(PICTURES):
            image = np.array(Image.open(own / "images" / f"{index}.png"))
            truths.append(np.array(Image.open(own / "labels" / f"{index}.png")).ravel())
            given.append(predict(image)[0].labels.ravel())
    truth, predicted = np.concatenate(truths), np.concatenate(given)
    truth, predicted = truth[truth != 255], predicted[truth != 255]
    occurring = np.unique(truth)
    assert row["miou"] == pytest.approx(
        100 * jaccard_score(truth, predicted, labels=occurring, average="macro")
    )
    assert row["pixel_accuracy"] == pytest.approx(100 * np.mean(truth == predicted))
    categories = {category["name"]: category for category in row["per_category"]}
    assert list(categories) == names
    for index, name in enumerate(names):
        pixels = int((truth == index).sum())
        assert categories[name]["pixels"] == pixels
        assert (categories[name]["iou"] is None) == (categories[name]["accuracy"] is None) == (pixels == 0)


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
        assert row["source"]["pictures"] == 4
    printed = capsys.readouterr().out
    assert f"own: 4 of its {PICTURES} pictures" in printed
    assert "own, rejection none" in printed and names_of(own)[0] in printed


def test_all_stands_beside_the_published_figures(
    tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    root = tmp_path / "sets"
    layouts.write_ade150(root, {"ADE_val_1": np.array([[0, 1, 150], [3, 3, 3]], np.uint8)})
    layouts.write_voc(root, {"2007_000001": np.array([[0, 1, 20], [255, 0, 3]], np.uint8)})
    content = evaluated(tmp_path / "r.json", tiny_checkpoint, "--data", "all", "--root", root)
    captured = capsys.readouterr()
    assert [(row["data"], row["rejection"]) for row in content["results"]] == [
        (name, policy) for name in ("ade150", "voc20", "voc20b") for policy in ("topk:8", "none")
    ]
    assert set(content["missing"]) == {"ade847", "pc459", "pc59", "coco-stuff"}
    assert "ADE20K_2021_17_01" in content["missing"]["ade847"]
    for name in content["missing"]:
        assert captured.err.count(f"skipped {name}: ") == 1
    lines = captured.out.splitlines()
    assert max(map(len, lines)) <= 80
    table = [[cell.strip() for cell in line.split("│")] for line in lines]
    assert ["published sed-b", "topk:8", "11.4", "18.6", "31.6", "57.3", "94.4"] in table
    assert ["published sed-l", "none", "13.7", "22.1", "35.3", "60.9", "96.1"] in table
    found = {row["data"]: f"{row['miou']:.1f}" for row in content["results"] if row["rejection"] == "none"}
    assert ["sed-tiny", "none", *(found.get(name, "-") for name in DATA)] in table


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
    tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    labels = np.array([[0, 1], [1, 0]], np.uint8)
    for folder in ("images", "labels"):
        (tmp_path / "ade150" / folder).mkdir(parents=True)
        Image.fromarray(labels).save(tmp_path / "ade150" / folder / "a.png")
    (tmp_path / "ade150" / "names.txt").write_text("sky\nroad\n")
    layouts.write_ade150(tmp_path / "sets", dict.fromkeys(("ADE_val_1", "ADE_val_2"), labels))
    published = ("--data", "ade150", "--root", "sets")
    ways = [
        (True, published),
        (False, (*published, "--short-side", 512)),
        (False, (*published, "--limit", 1)),
        (False, ("--data", "./ade150")),
    ]
    for as_published, arguments in ways:
        content = evaluated(tmp_path / "r.json", tiny_checkpoint, "-r", "none", *arguments)
        (row,) = content["results"]
        assert (row["data"], row["as_published"]) == ("ade150", as_published)
        assert ("published sed-b" in capsys.readouterr().out) == as_published


def test_brackets_in_paths_are_no_markup(
    own: Path,
    tiny_checkpoint: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # The progress bar is drawn as on a terminal.
    monkeypatch.setenv("FORCE_COLOR", "1")
    data = tmp_path / "x[" / "y]" / "[b]"
    shutil.copytree(own, data)
    evaluated(
        tmp_path / "r.json", tiny_checkpoint, "--data", data, "--limit", 1, "-r", "none", "--per-category"
    )
    assert "[b], rejection none" in capsys.readouterr().out


def test_without_a_labelled_pixel_there_is_no_score(
    tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    layouts.write_ade150(tmp_path, {"ADE_val_1": np.zeros((2, 3), np.uint8)})
    arguments = (tiny_checkpoint, "--data", "ade150", "--root", tmp_path, "-r", "topk:8")
    assert "none of its 1 pictures has a labelled pixel" in failed(capsys, *arguments)


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


SCORES = DatasetScores(
    "coco-stuff", "val", 10, 5000, 171, "min-pixels:8:20", 61.24, 71.5, 88.3, 60.1, (847.0, 312.4, 25.6),
    False, None, (CategoryScore("person [standing]", None, None, 0),),
)  # fmt: skip


def test_tables_fit_into_80_columns(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    side = {"name": "bundle", "precision": "fp16", "runs_on": "onnxruntime"}
    rows = [
        json.loads(json.dumps(each, default=vars)) for each in (SCORES, Parity(SCORES, SCORES, 0.014, 99.987))
    ]
    show_evaluation(
        "datasets", {"source": side, "presets": ["sed-b"], "results": [rows[0] | {"published": 31.8}]}
    )
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert [cell.strip() for cell in lines[4].split("│")] == [
        "coco-stuff", "min-pixels:8:20", "61.2", "31.8", "71.5", "88.3", "60.1", "847→312→26"
    ]  # fmt: skip
    show_evaluation("dataset-parity", {"source": side, "against": side, "results": [rows[1]]})
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert any("coco-stuff" in line and "+0.01" in line and "99.99" in line for line in lines)


def test_results_stand_in_reports() -> None:
    side = {"name": "bundle", "precision": "fp16", "runs_on": "onnxruntime"}
    whole = asdict(replace(SCORES, pictures=5000))
    content: dict[str, Any] = {"kind": "datasets", "source": side, "presets": ["sed-b"], "results": [whole]}
    header, _, row = markdown_table([content]).splitlines()
    assert "pictures" not in header and "published" not in header
    assert row == "| sed-b | coco-stuff | min-pixels:8:20 | 61.2 | 71.5 | 88.3 | 60.1 | 847→312→26 |"
    part = content | {"presets": ["sed-l"], "results": [asdict(replace(SCORES, published=31.8))]}
    table = markdown_table([content, part]).splitlines()
    assert table[-1].startswith("| sed-l | coco-stuff | 10 of 5000 | min-pixels:8:20 | 61.2 | 31.8 |")
    kind = {"kind": "dataset-parity", "against": side | {"precision": "fp32"}}
    parity = content | kind | {"results": [asdict(Parity(SCORES, SCORES, 0.014, 99.987))]}
    assert markdown_table([parity]).splitlines()[-1] == (
        "| sed-b | coco-stuff | 10 of 5000 | fp16 (onnxruntime) | fp32 (onnxruntime) | min-pixels:8:20 "
        "| 61.24 | 61.24 | +0.01 | 99.99 |"
    )
