"""Own data: images, label PNGs and names in a folder; and the procedural scenes."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sed_trt.errors import InputError
from sed_trt.tests.fakes.dataset_layouts import SIZE, flat_image, write_labels, write_own
from sed_trt.train.datasets import IGNORED, Scenes, open_dataset
from sed_trt.train.datasets.labels import read_label_image
from sed_trt.train.scenes import VOCABULARY, make_scene

NAMES = ["sky", "grass, lawn", "red car"]
LABELS = np.resize(np.array([0, 1, 2, 255], np.uint8), SIZE)
EXPECTED = np.where(LABELS == 255, IGNORED, LABELS.astype(int))


def test_plain_folder(tmp_path: Path) -> None:
    write_own(tmp_path, NAMES, {"b": LABELS, "a": LABELS[:, ::-1]})
    dataset = open_dataset(str(tmp_path))
    assert dataset.names == dataset.classes == tuple(NAMES)
    assert [Path(dataset.identity(index)).name for index in range(len(dataset))] == ["a.jpg", "b.jpg"]
    np.testing.assert_array_equal(dataset[0].labels, EXPECTED[:, ::-1])
    np.testing.assert_array_equal(dataset[1].labels, EXPECTED)
    assert dataset[1].labels.dtype == np.int32
    # Without folders for splits each of them is the whole.
    assert len(open_dataset(str(tmp_path), "train")) == 2


@pytest.mark.parametrize("way", ["split first", "images first"])
def test_splits(way: str, tmp_path: Path) -> None:
    for split, value in (("train", 1), ("val", 2)):
        write_own(tmp_path, NAMES, {f"{split}-1": np.full(SIZE, value, np.uint8)}, split)
        if way == "images first":
            for kind in ("images", "labels"):
                (tmp_path / kind).mkdir(exist_ok=True)
                (tmp_path / split / kind).rename(tmp_path / kind / split)
    assert (open_dataset(str(tmp_path), "train")[0].labels == 1).all()
    assert (open_dataset(str(tmp_path))[0].labels == 2).all()


def test_names_as_json(tmp_path: Path) -> None:
    write_own(tmp_path, NAMES, {"a": LABELS})
    (tmp_path / "names.txt").unlink()
    (tmp_path / "names.json").write_text(json.dumps(NAMES))
    assert open_dataset(str(tmp_path)).names == tuple(NAMES)


def test_palette(tmp_path: Path) -> None:
    write_own(tmp_path, NAMES, {"a": LABELS})
    write_labels(tmp_path / "labels/a.png", LABELS, palette=True)
    np.testing.assert_array_equal(open_dataset(str(tmp_path))[0].labels, EXPECTED)


def test_over_255_categories_in_16_bits(tmp_path: Path) -> None:
    labels = np.resize(np.array([0, 254, 255, 256, 299, 65535], np.uint16), SIZE)
    write_own(tmp_path, [f"thing {index}" for index in range(300)], {"a": labels})
    found = open_dataset(str(tmp_path))[0].labels
    np.testing.assert_array_equal(found, np.where(labels == 65535, IGNORED, labels.astype(int)))


def test_over_255_categories_in_8_bits(tmp_path: Path) -> None:
    labels = np.resize(np.array([0, 254, 255], np.uint8), SIZE)
    write_own(tmp_path, [f"thing {index}" for index in range(300)], {"a": labels})
    found = open_dataset(str(tmp_path))[0].labels
    np.testing.assert_array_equal(found, np.where(labels == 255, IGNORED, labels.astype(int)))


def test_255_is_no_label_in_16_bits(tmp_path: Path) -> None:
    write_own(tmp_path, NAMES, {"a": LABELS.astype(np.uint16)})
    with pytest.raises(InputError, match=r"a\.png: label ids 255 .* outside the list of 3"):
        open_dataset(str(tmp_path))[0]


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_grey_of_few_bits(bits: int, tmp_path: Path) -> None:
    # What optimisers of PNG make of labels with few values.
    values = np.resize(np.arange(2**bits, dtype=np.uint8), (4, 16))
    write_labels(tmp_path / "a.png", values)
    packed = tmp_path / "packed.png"
    write_packed_grey(packed, values, bits)
    np.testing.assert_array_equal(read_label_image(packed), values)


def write_packed_grey(path: Path, values: np.ndarray, bits: int) -> None:
    """A grey PNG of fewer than 8 bits, which Pillow cannot write."""
    import struct
    import zlib

    planes = np.unpackbits(values[..., None], axis=-1)[..., -bits:].reshape(len(values), -1)
    rows = b"".join(b"\0" + np.packbits(row).tobytes() for row in planes)
    header = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], bits, 0, 0, 0, 0)
    content = b"\x89PNG\r\n\x1a\n"
    for kind, data in ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")):
        content += struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    path.write_bytes(content)


def test_images_are_turned_by_their_exif(tmp_path: Path) -> None:
    write_own(tmp_path, NAMES, {"a": LABELS.T})
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(flat_image(0)).save(tmp_path / "images/a.jpg", exif=exif)
    assert open_dataset(str(tmp_path))[0].image.shape == (*LABELS.T.shape, 3)


def test_scenes() -> None:
    dataset = open_dataset("scenes")
    assert (len(dataset), dataset.split, dataset.names) == (200, "test", tuple(VOCABULARY))
    scene = make_scene(17, 256, "test")
    np.testing.assert_array_equal(dataset[17].image, scene.image)
    np.testing.assert_array_equal(dataset[17].labels, scene.labels)
    assert dataset[17].labels.dtype == np.int32
    assert dataset.identity(17) == "scene 17 of split test"


def test_scenes_of_other_seeds_and_sizes() -> None:
    dataset = Scenes("train", 3, 64, first_seed=100)
    np.testing.assert_array_equal(dataset[2].image, make_scene(102, 64, "train").image)
    assert dataset.identity(2) == "scene 102 of split train"
    with pytest.raises(IndexError):
        dataset[3]
