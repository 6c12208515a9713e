"""Broken data sets: what the one line says."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sed_trt.errors import InputError
from sed_trt.tests.fakes import dataset_layouts as layouts
from sed_trt.tests.fakes.dataset_layouts import SIZE
from sed_trt.train.datasets import open_dataset

ZEROS = np.zeros(SIZE, np.uint8)
ONES = np.ones(SIZE, np.uint8)


@pytest.fixture
def ade(tmp_path: Path) -> Path:
    """A whole ade150 of two samples."""
    layouts.write_ade150(tmp_path, {"a": ONES, "b": ONES})
    return tmp_path


def opening(name: str, root: Path, split: str | None = None) -> str:
    """The error of opening a set."""
    with pytest.raises(InputError) as caught:
        open_dataset(name, split, root)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def reading(name: str, root: Path | None = None) -> str:
    """The error of reading a set's first sample."""
    dataset = open_dataset(name, root=root)
    with pytest.raises(InputError) as caught:
        dataset[0]
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_unknown_set(tmp_path: Path) -> None:
    message = opening("ade15", tmp_path)
    assert "'ade15'" in message and "ade150, ade847, voc20" in message


def test_unknown_split(ade: Path) -> None:
    assert "'test' is unknown for ade150; choose one of val" in opening("ade150", ade, "test")
    assert "choose one of train, val" in opening("coco-stuff", ade, "test")
    assert "choose one of train, test" in opening("scenes", ade, "val")


def test_no_root(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("SED_DATASETS", raising=False)
    with pytest.raises(InputError, match=r"SED_DATASETS: is not set; .*--root"):
        open_dataset("ade150")
    monkeypatch.setenv("SED_DATASETS", str(tmp_path / "gone"))
    with pytest.raises(InputError, match=rf"{re.escape(str(tmp_path / 'gone'))}: is no folder"):
        open_dataset("ade150")


@pytest.mark.parametrize(
    ("name", "looked_for"),
    [
        ("coco-stuff", ["coco-stuff/images/val2017", "coco-stuff/annotations/val2017"]),
        ("ade150", ["ADEChallengeData2016/images/validation", "ADEChallengeData2016/annotations/validation"]),
        ("ade847", ["ADE20K_2021_17_01/images/ADE/validation"]),
        ("voc20", ["VOC2012/JPEGImages", "SegmentationClassAug", "ImageSets/Segmentation/val.txt"]),
        ("voc20b", ["VOC2012/JPEGImages", "annotations_detectron2_bg/val"]),
        ("pc59", ["VOC2010/JPEGImages", "VOC2010/trainval_merged.json"]),
        ("pc459", ["VOC2010/JPEGImages", "VOC2010/trainval", "VOC2010/pascalcontext_val.txt"]),
    ],
)
def test_missing_folders(name: str, looked_for: list[str], tmp_path: Path) -> None:
    message = opening(name, tmp_path)
    assert all(path in message for path in [*looked_for, str(tmp_path), "SED_DATASETS", "--root"])


def test_only_what_is_missing_is_said_to_be(ade: Path) -> None:
    shutil.rmtree(ade / "ADEChallengeData2016/annotations")
    missing, rest = opening("ade150", ade).split(" not found under ")
    assert missing == "ade150: ADEChallengeData2016/annotations/validation"
    assert "ADEChallengeData2016/images/validation" in rest


def test_missing_merged_annotations(tmp_path: Path) -> None:
    layouts.write_pc59(tmp_path, {"2008_000002": np.full(SIZE, 2)})
    (tmp_path / "VOCdevkit/VOC2010/trainval_merged.json").unlink()
    assert opening("pc59", tmp_path).startswith("pc59: VOCdevkit/VOC2010/trainval_merged.json not found")


def test_nothing_in_the_folders(ade: Path) -> None:
    for file in (ade / "ADEChallengeData2016").rglob("*.[jp]*g"):
        file.unlink()
    base = ade / "ADEChallengeData2016"
    assert opening("ade150", ade).startswith(
        f"{base / 'images/validation'} and {base / 'annotations/validation'}: neither images nor labels"
    )


def test_converted_labels_that_are_no_folder(ade: Path) -> None:
    path = ade / "ADEChallengeData2016/annotations_detectron2/validation"
    path.parent.mkdir()
    path.write_text("")
    assert opening("ade150", ade).startswith(f"{path}: cannot be listed")


def test_converted_folder_without_labels(tmp_path: Path) -> None:
    layouts.write_voc(tmp_path, {"2007_000033": ONES})
    path = tmp_path / "VOCdevkit/VOC2012/annotations_detectron2/val"
    path.mkdir(parents=True)
    (path / "notes.txt").write_text("")
    assert f"{path}: neither images nor labels" in opening("voc20", tmp_path)


def test_image_without_labels(ade: Path) -> None:
    (ade / "ADEChallengeData2016/annotations/validation/b.png").unlink()
    assert re.search(
        r"1 image has no labels, the first is .*images/validation/b\.jpg", opening("ade150", ade)
    )


def test_labels_without_image(ade: Path) -> None:
    (ade / "ADEChallengeData2016/images/validation/b.jpg").unlink()
    message = opening("ade150", ade)
    assert re.search(r"1 label file has no image, the first is .*annotations/validation/b\.png", message)


def test_listed_but_absent(tmp_path: Path) -> None:
    layouts.write_voc(tmp_path, {"2007_000033": ONES})
    listed = tmp_path / "VOCdevkit/VOC2012/ImageSets/Segmentation/val.txt"
    listed.write_text("2007_000033\n2007_000061\n2007_000063\n")
    message = opening("voc20", tmp_path)
    assert "2 listed names have neither image nor labels, the first is 2007_000061" in message


def test_listed_twice_or_nothing(tmp_path: Path) -> None:
    layouts.write_voc(tmp_path, {"2007_000033": ONES})
    listed = tmp_path / "VOCdevkit/VOC2012/ImageSets/Segmentation/val.txt"
    listed.write_text("2007_000033\n2007_000033\n")
    assert "val.txt: lists 2007_000033 twice" in opening("voc20", tmp_path)
    listed.write_text("\n")
    assert "val.txt: lists no images" in opening("voc20", tmp_path)


def test_image_without_annotation(tmp_path: Path) -> None:
    layouts.write_pc59(tmp_path, {"2008_000002": np.full(SIZE, 2)})
    path = tmp_path / "VOCdevkit/VOC2010/trainval_merged.json"
    content = json.loads(path.read_text())
    content["annos_segmentation"] = content["annos_segmentation"][1:]
    path.write_text(json.dumps(content))
    assert re.search("1 image has no labels, .*2008_000002", opening("pc59", tmp_path))


def test_annotation_without_image(tmp_path: Path) -> None:
    layouts.write_pc59(tmp_path, {"2008_000002": np.full(SIZE, 2), "2008_000003": np.full(SIZE, 2)})
    (tmp_path / "VOCdevkit/VOC2010/JPEGImages/2008_000003.jpg").unlink()
    message = opening("pc59", tmp_path)
    assert re.search(r"has no image, .*trainval_merged\.json \(labels of 2008_000003\)", message)


@pytest.mark.parametrize(
    ("break_it", "said"),
    [
        (lambda content: {"images": content["images"]}, "is not PASCAL-Context's"),
        (lambda content: [], "is not PASCAL-Context's"),
        (lambda content: content | {"images": content["images"][1:]}, "no image of the phase 'val'"),
    ],
)
def test_other_json(break_it: Callable[[dict], object], said: str, tmp_path: Path) -> None:
    layouts.write_pc59(tmp_path, {"2008_000002": np.full(SIZE, 2)})
    path = tmp_path / "VOCdevkit/VOC2010/trainval_merged.json"
    path.write_text(json.dumps(break_it(json.loads(path.read_text()))))
    message = opening("pc59", tmp_path)
    assert "trainval_merged.json: " in message and said in message


def test_truncated_json(tmp_path: Path) -> None:
    layouts.write_pc59(tmp_path, {"2008_000002": np.full(SIZE, 2)})
    path = tmp_path / "VOCdevkit/VOC2010/trainval_merged.json"
    path.write_bytes(path.read_bytes()[:-20])
    assert re.search(r"trainval_merged\.json: cannot be read .*whole", opening("pc59", tmp_path))


@pytest.mark.parametrize(
    "segmentation",
    [
        {"size": [3, 3], "counts": [9]},
        {"size": list(SIZE), "counts": [5, 6]},
        {"size": list(SIZE)},
        {"counts": [35]},
        [[1, 2]],
        "mask",
        [],
    ],
)
def test_broken_mask(segmentation: object, tmp_path: Path) -> None:
    layouts.write_pc59(tmp_path, {"2008_000002": np.full(SIZE, 2)})
    path = tmp_path / "VOCdevkit/VOC2010/trainval_merged.json"
    content = json.loads(path.read_text())
    content["annos_segmentation"][0]["segmentation"] = segmentation
    path.write_text(json.dumps(content))
    assert "trainval_merged.json: category 2 of 2008_000002: the mask is" in reading("pc59", tmp_path)


def test_labels_of_another_size(ade: Path) -> None:
    layouts.write_labels(ade / "ADEChallengeData2016/annotations/validation/a.png", np.ones((4, 4), np.uint8))
    message = reading("ade150", ade)
    assert re.match(
        r".*validation/a\.png: labels are 4 x 4, but .*a\.jpg is 5 x 7; expected the same", message
    )


def test_labels_on_their_side(ade: Path) -> None:
    layouts.write_labels(ade / "ADEChallengeData2016/annotations/validation/a.png", ONES.T.copy())
    assert "EXIF" in reading("ade150", ade)


@pytest.mark.parametrize(
    ("name", "write", "ids"),
    [
        ("ade150", lambda root: layouts.write_ade150(root, {"a": ONES * 151}), "151"),
        ("coco-stuff", lambda root: layouts.write_coco(root, {"a": ONES * 11}), "11"),
        ("voc20", lambda root: layouts.write_voc(root, {"a": ONES * 21}), "21"),
        (
            "pc459",
            lambda root: layouts.write_pc459(root, {"a": np.resize(np.array([0, 461, -3]), SIZE)}),
            "-3, 461",
        ),
        ("pc459", lambda root: layouts.write_pc459(root, {"a": np.full(SIZE, 70000)}), "70000"),
    ],
)
def test_ids_outside_the_list(name: str, write: Callable[[Path], None], ids: str, tmp_path: Path) -> None:
    write(tmp_path)
    message = reading(name, tmp_path)
    assert f"label ids {ids} for a.jpg are outside" in message and "data check" in message


@pytest.mark.parametrize("file", ["images/validation/a.jpg", "annotations/validation/a.png"])
@pytest.mark.parametrize("how", ["truncated", "empty", "text", "gone"])
def test_unreadable_files(file: str, how: str, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(1, 151, (64, 64), dtype=np.uint8)
    layouts.write_ade150(tmp_path, {"a": noise})
    path = tmp_path / "ADEChallengeData2016" / file
    dataset = open_dataset("ade150", root=tmp_path)
    contents = {
        "truncated": path.read_bytes()[: path.stat().st_size // 2],
        "empty": b"",
        "text": b"not found",
    }
    path.unlink() if how == "gone" else path.write_bytes(contents[how])
    with pytest.raises(InputError, match=re.escape(f"{path}: ")):
        dataset[0]


def test_image_instead_of_labels(ade: Path) -> None:
    path = ade / "ADEChallengeData2016/annotations/validation/a.png"
    Image.fromarray(layouts.flat_image(0)).save(path)
    assert re.search(r"a\.png: is an image in RGB, expected labels in one channel", reading("ade150", ade))


def test_grey_instead_of_ade_colours(tmp_path: Path) -> None:
    layouts.write_ade847(tmp_path, {"a": np.full(SIZE, 312)})
    (path,) = tmp_path.rglob("*_seg.png")
    Image.fromarray(ONES).save(path)
    assert "_seg.png: is an image in L, expected ADE20K's labels" in reading("ade847", tmp_path)


def test_wrong_matlab_variable(tmp_path: Path) -> None:
    from scipy.io import savemat

    layouts.write_pc459(tmp_path, {"a": ONES})
    path = tmp_path / "VOCdevkit/VOC2010/trainval/a.mat"
    savemat(path, {"Labels": ONES})
    assert "a.mat: holds no variable LabelMap (found: Labels)" in reading("pc459", tmp_path)
    savemat(path, {"LabelMap": "text"})
    assert "expected integers (height, width)" in reading("pc459", tmp_path)
    savemat(path, {"LabelMap": ONES * 0.5})
    assert "fractions" in reading("pc459", tmp_path)
    for content in (b"MATLAB 5.0" * 30, b""):
        path.write_bytes(content)
        assert "a.mat: cannot be read" in reading("pc459", tmp_path)


def test_labels_as_matlab_doubles(tmp_path: Path) -> None:
    layouts.write_pc459(tmp_path, {"a": ONES.astype(float)})
    assert (open_dataset("pc459", root=tmp_path)[0].labels == 0).all()


@pytest.mark.parametrize(
    ("break_it", "said"),
    [
        (lambda own: (own / "names.txt").unlink(), "neither names.txt nor names.json"),
        (lambda own: (own / "names.txt").write_text("sky\n\ncar\n"), "names.txt: line 2 is blank"),
        (lambda own: (own / "names.txt").write_text("sky\nsky\n"), "names.txt: .*duplicate"),
        (lambda own: shutil.rmtree(own / "images"), "the folder images is missing"),
        (lambda own: shutil.rmtree(own / "labels"), "the folder labels is missing"),
        (
            lambda own: (own / "labels/a.png").rename(own / "labels/c.png"),
            "1 image has no labels.*label file",
        ),
        (lambda own: shutil.copy(own / "images/a.jpg", own / "images/a.png"), "shares its name"),
        (lambda own: (own / "train/images").mkdir(parents=True), "has the split train but no whole 'val'"),
    ],
)
def test_broken_own_folder(break_it: Callable[[Path], object], said: str, tmp_path: Path) -> None:
    own = tmp_path / "own"
    layouts.write_own(own, ["sky", "car"], {"a": ZEROS})
    break_it(own)
    with pytest.raises(InputError, match=said) as caught:
        open_dataset(str(own))
    assert str(own) in str(caught.value)


def test_unknown_split_of_own_folder(tmp_path: Path) -> None:
    layouts.write_own(tmp_path, ["sky", "car"], {"a": ZEROS})
    assert "choose one of train, val" in opening(str(tmp_path), tmp_path, "test")


def test_label_line_that_is_not_there(tmp_path: Path) -> None:
    layouts.write_own(tmp_path, ["sky", "car"], {"a": ONES * 2})
    assert "label ids 2 for a.jpg are outside the list of 2" in reading(str(tmp_path))
