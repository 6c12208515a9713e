"""Label maps, overlays and summaries as files."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sed_trt.errors import InputError
from sed_trt.runtime.result import colours, summary, write_json, write_labels, write_overlay
from sed_trt.tests.fakes.results import HALVES, result_of


def numbered(count: int) -> tuple[str, ...]:
    return tuple(f"category {index}" for index in range(count))


@pytest.mark.parametrize("count", [1, 2, 16, 17, 256])
def test_palette_up_to_256_categories(count: int, tmp_path: Path) -> None:
    labels = np.arange(24).reshape(4, 6) % count
    labels[0, 0] = count - 1
    write_labels(tmp_path / "a.png", result_of(labels, numbered(count)))
    with Image.open(tmp_path / "a.png") as image:
        assert image.mode == "P"
        assert np.array_equal(np.asarray(image), labels)
        assert np.array_equal(np.asarray(image.convert("RGB")), colours(count)[labels])


@pytest.mark.parametrize("count", [257, 65535])
def test_sixteen_bits_above(count: int, tmp_path: Path) -> None:
    labels = np.array([[0, 255, 256, count - 1]])
    write_labels(tmp_path / "a.png", result_of(labels, numbered(count)))
    with Image.open(tmp_path / "a.png") as image:
        assert image.mode.startswith("I;16")
        assert np.array_equal(np.asarray(image), labels)


def test_overlay_file_is_the_overlay(tmp_path: Path) -> None:
    write_overlay(tmp_path / "o.png", HALVES)
    with Image.open(tmp_path / "o.png") as image:
        assert np.array_equal(np.asarray(image), np.asarray(HALVES.overlay()))


def test_summary_as_json(tmp_path: Path) -> None:
    write_json(tmp_path / "s.json", summary("a.jpg", HALVES))
    assert json.loads((tmp_path / "s.json").read_text()) == {
        "image": "a.jpg",
        "width": 400,
        "height": 100,
        "categories": [
            {"index": 0, "name": "sky", "share": 0.75, "pixels": 30000},
            {"index": 2, "name": "Bäckerei 木", "share": 0.25, "pixels": 10000},
        ],
        "kept": [3, 3, 3],
        "timings_ms": {"label": 1.0},
    }


def test_nothing_half_written_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "a.png"
    target.write_text("before")

    def full_disk(self: Image.Image, path: Path, format: str) -> None:
        path.write_text("half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full_disk)
    with pytest.raises(InputError, match=r"a\.png: cannot be written \(No space left on device\)"):
        write_labels(target, HALVES)
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
    assert target.read_text() == "before"


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be written"):
        write_labels(tmp_path / "absent" / "a.png", HALVES)
