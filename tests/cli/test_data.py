"""`sed-trt data`."""

import json
from pathlib import Path

import numpy as np
import pytest

from sed_trt.cli.main import main
from sed_trt.tests.fakes import dataset_layouts as layouts
from sed_trt.tests.fakes.dataset_layouts import SIZE
from sed_trt.tests.test_imports import HEAVY, imported_by

ONES = np.ones(SIZE, np.uint8)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A whole ade150 of two samples."""
    layouts.write_ade150(tmp_path, {"a": ONES, "b": ONES * 5})
    return tmp_path


def test_whole_set(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "check", "ade150", "--root", str(root)]) == 0
    printed = capsys.readouterr()
    assert "ade150, split val (raw): 2 images, 2 labels, 150 categories" in printed.out
    assert "wall" in printed.out and "nothing is wrong" in printed.out
    assert printed.err == ""


def test_faults_are_printed_and_exit_with_2(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (root / "ADEChallengeData2016/annotations/validation/b.png").unlink()
    layouts.write_labels(root / "ADEChallengeData2016/annotations/validation/a.png", ONES * 200)
    assert main(["data", "check", "ade150", "--root", str(root)]) == 2
    printed = capsys.readouterr()
    assert "fault: label id 200 is outside the list of 150 categories, in 1 label file" in printed.out
    assert printed.err.startswith("sed-trt: error: ade150, split val: 1 image has no labels")
    assert printed.err.count("\n") == 1


def test_report_as_json(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (root / "ADEChallengeData2016/images/validation/b.jpg").write_bytes(b"")
    assert main(["data", "check", "ade150", "--root", str(root), "--json"]) == 2
    content = json.loads(capsys.readouterr().out)
    assert (content["images"], content["whole"]) == (2, False)
    assert "b.jpg" in content["first_broken"]
    assert len(content["categories"]) == 150


def test_own_folder_and_split(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    layouts.write_own(tmp_path, ["sky", "car"], {"a": ONES}, "train")
    assert main(["data", "check", str(tmp_path), "--split", "train"]) == 0
    assert "split train (own): 1 images" in capsys.readouterr().out
    assert main(["data", "check", str(tmp_path)]) == 2
    assert "no whole 'val'" in capsys.readouterr().err


def test_missing_set(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "check", "pc59", "--root", str(tmp_path)]) == 2
    printed = capsys.readouterr()
    assert printed.out == "" and "VOCdevkit/VOC2010/trainval_merged.json" in printed.err


def test_list(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "list", "--root", str(root)]) == 0
    printed = capsys.readouterr().out
    assert (
        "ade150, split val: ADE20K, 150 categories; raw\n    ADEChallengeData2016/images/validation"
        in printed
    )
    assert "or converted labels in VOCdevkit/VOC2010/annotations_detectron2/pc459_val" in printed
    assert main(["data", "list", "--json", "--root", str(root)]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["found"] for row in rows if row["name"] == "ade150"] == ["raw"]


def test_checking_needs_no_torch(root: Path, tmp_path: Path) -> None:
    modules = imported_by(
        "from sed_trt.cli.main import main\n"
        f"assert main(['data', 'check', 'ade150', '--root', {str(root)!r}]) == 0",
        tmp_path / "cache",
    )
    assert "PIL" in modules
    assert not modules & {*HEAVY, "scipy", "pycocotools"}


def test_help_imports_nothing_heavy(tmp_path: Path) -> None:
    modules = imported_by(
        "from sed_trt.cli.main import main\nassert main(['data', 'check', '--help']) == 0\nprint()", tmp_path
    )
    assert not modules & {*HEAVY, "numpy", "PIL"}
