"""The seven published sets, read from the layouts of their downloads and from converted ones alike."""

import pickle
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sed_trt.errors import InputError
from sed_trt.runtime.vocabulary import published
from sed_trt.tests.fakes import dataset_layouts as layouts
from sed_trt.tests.fakes.dataset_layouts import SIZE, flat_image
from sed_trt.train.datasets import IGNORED, NAMES, Dataset, open_dataset
from sed_trt.train.datasets.labels import published_ids

# Expected labels by image, written raw and converted into a folder.
Expected = dict[str, np.ndarray]


def rng_labels(names: list[str], values: list[int], sizes: list[tuple[int, int]] | None = None) -> Expected:
    """Random label maps of the values, each of which occurs."""
    rng = np.random.default_rng(0)
    maps = {}
    for name, size in zip(names, sizes or [SIZE, (4, 9), (8, 8)], strict=False):
        flat = rng.choice(values, size[0] * size[1])
        flat[: len(values)] = values
        maps[name] = flat.reshape(size).astype(np.int32)
    return maps


def mapped(labels: Expected, to_raw: Callable[[np.ndarray], np.ndarray], depth: type) -> Expected:
    return {name: to_raw(values).astype(depth) for name, values in labels.items()}


def unscored_as(value: int, labels: Expected, depth: type) -> Expected:
    """Category indices, with a value for what is not scored, as most conversions write them."""
    return mapped(labels, lambda each: np.where(each == IGNORED, value, each), depth)


def inverse(ids: dict[int, int], ignored: int) -> Callable[[np.ndarray], np.ndarray]:
    """Raw ids of category indices, and `ignored` for what is not scored."""
    table = np.full(len(ids) + 1, ignored)
    for value, index in ids.items():
        table[index] = value
    return lambda labels: table[labels]


def write_coco(root: Path, converted: bool) -> Expected:
    expected = rng_labels(["000000000139", "000000000285"], [0, 11, 100, 170, IGNORED])
    raw = mapped(expected, inverse(dict(published_ids("coco_stuff")), 255), np.uint8)
    indices = mapped(expected, lambda labels: np.where(labels == IGNORED, 255, labels), np.uint8)
    # Raw labels that say something else show that the converted ones are read.
    layouts.write_coco(root, mapped(raw, np.zeros_like, np.uint8) if converted else raw)
    if converted:
        layouts.write_coco(root, {}, converted=indices)
    return expected


def write_ade150(root: Path, converted: bool) -> Expected:
    expected = rng_labels(["ADE_val_00000001", "ADE_val_00000002"], [0, 1, 149, IGNORED])
    raw = mapped(expected, lambda labels: labels + 1, np.uint8)
    # The published script subtracts 1 from 8-bit values, so that 0 becomes 255.
    layouts.write_ade150(root, raw, mapped(raw, lambda labels: labels - 1, np.uint8) if converted else None)
    return expected


def write_ade847(root: Path, converted: bool, with_images: bool = True) -> Expected:
    expected = rng_labels(["ADE_val_00000001", "ADE_val_00000002"], [0, 5, 255, 256, 846, IGNORED])
    # Class 1 is in no list of 847; ADE20K names it "-".
    raw = mapped(expected, inverse(dict(published_ids("ade847")), 1), np.int32)
    layouts.write_ade847(root, raw)
    if converted:
        labels = unscored_as(65535, expected, np.uint16)
        layouts.write_ade847_converted(root, labels, with_images)
    return expected


def write_voc20(root: Path, converted: bool) -> Expected:
    expected = rng_labels(["2007_000033", "2011_003271"], [0, 7, 19, IGNORED])
    raw = mapped(expected, lambda each: np.where(each == IGNORED, 255, each + 1), np.uint8)
    for values in raw.values():
        # Background is not scored either.
        values[values == 255] = np.resize([0, 255], (values == 255).sum())
    layouts.write_voc(root, raw)
    if converted:
        labels = unscored_as(255, expected, np.uint8)
        layouts.write_voc_converted(root, labels, background=False)
    return expected


def write_voc20b(root: Path, converted: bool) -> Expected:
    expected = rng_labels(["2007_000033", "2011_003271"], [0, 7, 19, 20, IGNORED])
    raw = mapped(
        expected, lambda each: np.select([each == IGNORED, each == 20], [255, 0], each + 1), np.uint8
    )
    layouts.write_voc(root, raw)
    if converted:
        labels = unscored_as(255, expected, np.uint8)
        layouts.write_voc_converted(root, labels, background=True)
    return expected


def write_pc59(root: Path, converted: bool) -> Expected:
    expected = rng_labels(["2008_000002", "2010_003120"], [0, 30, 58, IGNORED])
    # Category 1 is in the file but none of the 59.
    layouts.write_pc59(root, mapped(expected, inverse(dict(published_ids("pc59")), 1), np.int32))
    if converted:
        labels = unscored_as(255, expected, np.uint8)
        layouts.write_context_converted(root, labels, "pc59_val")
    return expected


def write_pc459(root: Path, converted: bool) -> Expected:
    expected = rng_labels(["2008_000002", "2010_003120"], [0, 254, 255, 256, 458, IGNORED])

    def raw_ids(labels: np.ndarray) -> np.ndarray:
        ignored = np.where(np.arange(labels.shape[1]) % 2, 460, 0)
        return np.where(labels == IGNORED, ignored, labels + 1)

    raw = mapped(expected, raw_ids, np.uint16)
    layouts.write_pc459(root, raw)
    if converted:
        layouts.write_context_converted(root, mapped(raw, lambda each: each - 1, np.uint16), "pc459_val")
    return expected


WRITERS = {
    "coco-stuff": write_coco,
    "ade150": write_ade150,
    "ade847": write_ade847,
    "voc20": write_voc20,
    "voc20b": write_voc20b,
    "pc59": write_pc59,
    "pc459": write_pc459,
}
KINDS = pytest.mark.parametrize("converted", [False, True], ids=["raw", "converted"])


def assert_holds(dataset: Dataset, expected: Expected) -> None:
    assert len(dataset) == len(expected)
    for index, (name, labels) in enumerate(expected.items()):
        sample = dataset[index]
        assert Path(dataset.identity(index)).stem == name
        assert sample.image.dtype == np.uint8
        # JPEG changes a flat image by a level or two.
        assert np.abs(sample.image.astype(int) - flat_image(index, labels.shape)).max() <= 4
        assert sample.labels.dtype == np.int32
        np.testing.assert_array_equal(sample.labels, labels)


@KINDS
@pytest.mark.parametrize("name", WRITERS)
def test_set_in_its_published_layout(name: str, converted: bool, tmp_path: Path) -> None:
    expected = WRITERS[name](tmp_path, converted)
    dataset = open_dataset(name, root=tmp_path)
    assert dataset.name == name and dataset.split == "val"
    assert_holds(dataset, expected)
    # Loaders may send a set to other processes.
    assert_holds(pickle.loads(pickle.dumps(dataset)), expected)


def test_all_published_names_are_tested() -> None:
    assert {*WRITERS, "scenes"} == set(NAMES)


@KINDS
@pytest.mark.parametrize("name", WRITERS)
def test_which_layout_is_read(name: str, converted: bool, tmp_path: Path) -> None:
    WRITERS[name](tmp_path, converted)
    dataset = open_dataset(name, root=tmp_path)
    assert getattr(dataset, "source").kind == ("converted" if converted else "raw")  # noqa: B009


def test_converted_labels_with_original_images(tmp_path: Path) -> None:
    expected = write_ade847(tmp_path, True, with_images=False)
    dataset = open_dataset("ade847", root=tmp_path)
    assert_holds(dataset, expected)
    assert "images/ADE/validation/home_or_hotel" in Path(dataset.identity(0)).as_posix()


def test_empty_folder_of_converted_labels_counts_as_none(tmp_path: Path) -> None:
    expected = write_ade150(tmp_path, False)
    converted = tmp_path / "ADEChallengeData2016/annotations_detectron2/validation"
    converted.mkdir(parents=True)
    assert_holds(open_dataset("ade150", root=tmp_path), expected)
    (converted / ".DS_Store").write_bytes(b"")
    assert_holds(open_dataset("ade150", root=tmp_path), expected)


def test_root_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_voc20(tmp_path, False)
    monkeypatch.setenv("SED_DATASETS", str(tmp_path))
    assert len(open_dataset("voc20")) == 2


def test_training_split_of_coco(tmp_path: Path) -> None:
    layouts.write_coco(tmp_path, {"000000000009": np.full(SIZE, 181, np.uint8)}, split="train")
    dataset = open_dataset("coco-stuff", "train", tmp_path)
    assert dataset.split == "train"
    assert (dataset[0].labels == 170).all()


@pytest.mark.parametrize(
    ("name", "write", "ids", "outside"),
    [
        (
            "ade847",
            layouts.write_ade847,
            {2978: "wall", 3107: "horse, equus caballus", 6: "ad, advertisement, advertizement, advertising"},
            2979,
        ),
        ("coco-stuff", layouts.write_coco, {0: "person", 12: "stop sign", 91: "banner", 123: "grass"}, 255),
        ("pc59", layouts.write_pc59, {2: "aeroplane", 9: "bag", 445: "water", 458: "wood"}, 1),
    ],
)
def test_names_of_raw_ids(
    name: str, write: Callable[..., None], ids: dict[int, str], outside: int, tmp_path: Path
) -> None:
    values = np.resize([*ids, outside], SIZE)
    write(tmp_path, {"a": values.astype(np.uint8) if name == "coco-stuff" else values})
    dataset = open_dataset(name, root=tmp_path)
    labels = dataset[0].labels
    for value, called in ids.items():
        (index,) = np.unique(labels[values == value])
        assert dataset.classes[index].startswith(called)
    assert (labels[values == outside] == IGNORED).all()


@pytest.mark.parametrize("form", ["lengths", "polygons"])
def test_masks_in_other_forms(form: str, tmp_path: Path) -> None:
    ids = np.full(SIZE, 2)
    ids[2:6, 1:4] = 458
    ids[:2, :] = 9
    if form == "polygons":
        # Each category must be one rectangle; what is left over stays without a label.
        ids[2:, :1] = ids[2:, 4:] = ids[6:, :] = 0
    layouts.write_pc59(tmp_path, {"2008_000002": ids}, form)
    expected = np.select([ids == 2, ids == 9, ids == 458], [0, 1, 58], IGNORED)
    np.testing.assert_array_equal(open_dataset("pc59", root=tmp_path)[0].labels, expected)


def test_names_and_classes(tmp_path: Path) -> None:
    for name, write in WRITERS.items():
        write(tmp_path / name, False)
        dataset = open_dataset(name, root=tmp_path / name)
        vocabulary = tuple(published("coco" if name == "coco-stuff" else name))
        assert dataset.names == vocabulary
        assert dataset.scored_as.dtype == np.int32 and len(dataset.scored_as) == len(vocabulary)
        assert dataset.max_short_side == (512 if name == "ade847" else None)
        if name != "voc20b":
            assert dataset.classes == vocabulary
            assert dataset.scored_as.tolist() == list(range(len(vocabulary)))


def test_background_takes_all_names_after_the_first_twenty(tmp_path: Path) -> None:
    write_voc20b(tmp_path, False)
    dataset = open_dataset("voc20b", root=tmp_path)
    assert len(dataset.names) == 59
    assert dataset.classes == (*published("voc20"), "background")
    assert dataset.scored_as.tolist() == [*range(20), *[20] * 39]


def test_original_images_of_ade20k_are_not_turned(tmp_path: Path) -> None:
    write_ade847(tmp_path, False)
    path = Path(open_dataset("ade847", root=tmp_path).identity(0))
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(flat_image(0)).save(path, exif=exif)
    assert open_dataset("ade847", root=tmp_path)[0].image.shape == (*SIZE, 3)


def test_samples_beyond_the_end(tmp_path: Path) -> None:
    write_voc20(tmp_path, False)
    dataset = open_dataset("voc20", root=tmp_path)
    for index in (2, -1):
        with pytest.raises(IndexError):
            dataset[index]


@pytest.mark.parametrize(
    ("module", "package", "name"),
    [("pycocotools.mask", "pycocotools", "pc59"), ("scipy", "scipy", "pc459")],
)
def test_missing_reader(
    module: str, package: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    WRITERS[name](tmp_path, False)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(InputError, match=rf"'{package}' is not installed.*\[train\]"):
        open_dataset(name, root=tmp_path)
