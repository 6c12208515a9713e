"""What the check of a data set counts, and which faults it finds."""

import re
from pathlib import Path

import numpy as np
import pytest

from sed_trt.tests.fakes import dataset_layouts as layouts
from sed_trt.tests.fakes.dataset_layouts import SIZE
from sed_trt.train.datasets import Scenes
from sed_trt.train.datasets.check import CheckReport, check_dataset
from sed_trt.train.datasets.opening import find_dataset, list_datasets

AREA = SIZE[0] * SIZE[1]


def plain(value: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    return np.full(size, value, np.uint8)


def checked(root: Path) -> CheckReport:
    return check_dataset(find_dataset("ade150", root=root))


def test_counts(tmp_path: Path) -> None:
    half = plain(3)
    half[:2] = 0
    layouts.write_ade150(tmp_path, {"a": plain(3), "b": half, "c": plain(150)})
    report = checked(tmp_path)
    assert (report.images, report.labels, report.kind, report.faults()) == (3, 3, "raw", [])
    ignored = 2 * SIZE[1]
    assert report.ignored == ignored
    expected = np.zeros(150, int)
    expected[2], expected[149] = 2 * AREA - ignored, AREA
    np.testing.assert_array_equal(report.pixels, expected)
    assert report.images_with[[2, 149, 0]].tolist() == [2, 1, 0]


def test_every_fault_is_found(tmp_path: Path) -> None:
    base = tmp_path / "ADEChallengeData2016"
    layouts.write_ade150(tmp_path, {name: plain(1) for name in "abcdefg"})
    layouts.write_labels(base / "annotations/validation/a.png", plain(200))
    both = plain(200)
    both[0] = 180
    layouts.write_labels(base / "annotations/validation/b.png", both)
    layouts.write_labels(base / "annotations/validation/c.png", plain(1, (3, 3)))
    (base / "images/validation/d.jpg").write_bytes(b"no image")
    (base / "annotations/validation/e.png").unlink()
    (base / "images/validation/f.jpg").unlink()
    report = checked(tmp_path)
    # c still counts: its labels can be read.
    assert (report.images, report.labels) == (6, 6)
    assert report.outside == {200: 2, 180: 1}
    assert Path(report.outside_first[200]).name == "a.jpg" and Path(report.outside_first[180]).name == "b.jpg"
    assert [len(report.mismatched), len(report.unreadable)] == [1, 1]
    content = report.as_json()
    assert not content["whole"]
    assert "d.jpg" in content["first_broken"] and "c.png" in content["size_mismatches"][0]
    assert [Path(path).name for path in content["images_without_labels"]] == ["e.jpg"]
    assert [Path(path).name for path in content["labels_without_images"]] == ["f.png"]
    assert [entry["files"] for entry in content["outside"]] == [1, 2]
    faults = "\n".join(report.faults())
    for said in (
        "e.jpg",
        "f.png",
        "d.jpg",
        "c.png",
        "id 180 .* in 1 label file,",
        "id 200 .* in 2 label files",
    ):
        assert re.search(said, faults)
    assert content["categories"][0] == {"index": 0, "name": "wall", "pixels": AREA + 9, "images": 2}


def test_progress(tmp_path: Path) -> None:
    layouts.write_ade150(tmp_path, {"a": plain(1), "b": plain(1)})
    seen: list[tuple[int, int]] = []
    check_dataset(find_dataset("ade150", root=tmp_path), lambda done, total: seen.append((done, total)))
    assert seen == [(1, 2), (2, 2)]


def test_scenes_are_counted() -> None:
    report = check_dataset(Scenes("test", 3, 64))
    assert (report.images, int(report.pixels.sum()), report.faults()) == (3, 3 * 64 * 64, [])


def test_overview(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SED_DATASETS", raising=False)
    layouts.write_ade150(tmp_path, {"a": plain(1)}, {"a": plain(0)})
    layouts.write_voc(tmp_path, {"2007_000033": plain(1)})
    found = {(row["name"], row["split"]): row["found"] for row in list_datasets(tmp_path)}
    assert found["ade150", "val"] == "converted"
    assert found["voc20", "val"] == found["voc20b", "val"] == "raw"
    assert found["coco-stuff", "train"] == (
        "missing: coco-stuff/images/train2017, coco-stuff/annotations/train2017"
    )
    assert found["scenes", "test"] == "drawn when needed"
    assert "SED_DATASETS is not set" in list_datasets()[0]["found"]
