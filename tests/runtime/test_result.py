"""Results: shares, overlay and colours, and the files written of them."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sed_trt.errors import InputError
from sed_trt.runtime.result import colours, summary, write_json, write_labels, write_overlay
from sed_trt.tests.fakes.results import HALVES, result_of


def test_shares_are_of_what_is_present_largest_first() -> None:
    assert list(HALVES.shares().items()) == [("sky", 0.75), ("Bäckerei 木", 0.25)]


def test_pixels_of_a_tall_image_are_counted_whole() -> None:
    labels = np.random.default_rng(0).integers(0, 5, (1000, 7)).astype(np.uint16)
    counts = result_of(labels, tuple(map(str, range(9)))).pixel_counts
    assert counts == {label: int((labels == label).sum()) for label in counts}
    assert list(counts.values()) == sorted(counts.values(), reverse=True)
    assert sum(counts.values()) == labels.size


def test_pixels_are_blended_with_their_colour() -> None:
    overlay = np.asarray(HALVES.overlay(alpha=0.5, legend=False))
    table = colours(3).astype(float)
    assert overlay.shape == (100, 400, 3)
    assert np.abs(overlay[:, :100] - (100 + table[2]) / 2).max() <= 1
    assert np.abs(overlay[:, 100:] - (100 + table[0]) / 2).max() <= 1


def test_legend_stands_below_and_shows_the_colours_present() -> None:
    plain = np.asarray(HALVES.overlay(legend=False))
    overlay = np.asarray(HALVES.overlay())
    assert np.array_equal(overlay[:100, :400], plain)
    legend = {tuple(colour) for colour in overlay[100:].reshape(-1, 3).tolist()}
    table = [tuple(colour) for colour in colours(3).tolist()]
    assert table[0] in legend
    assert table[2] in legend
    assert table[1] not in legend


@pytest.mark.parametrize("size", [(1, 1), (3, 2000), (2000, 3)])
def test_odd_shapes(size: tuple[int, int]) -> None:
    overlay = result_of(np.zeros(size, dtype=int), ("x" * 1000,)).overlay()
    assert overlay.height > size[0]
    assert size[1] <= overlay.width < max(size[1], 2500)


def test_many_categories_present_keep_a_short_legend() -> None:
    labels = np.arange(64 * 64).reshape(64, 64)
    overlay = result_of(labels, tuple(f"name {index}" for index in range(4096))).overlay()
    assert overlay.height < 2000


@pytest.mark.parametrize("alpha", [-0.1, 1.1, float("nan")])
def test_alpha_out_of_range(alpha: float) -> None:
    with pytest.raises(InputError, match="alpha"):
        HALVES.overlay(alpha=alpha)


def test_alpha_at_its_ends() -> None:
    assert np.array_equal(np.asarray(HALVES.overlay(0, legend=False)), HALVES.image)
    assert np.asarray(HALVES.overlay(1, legend=False))[0, 0].tolist() == colours(3)[2].tolist()


def test_colours_are_the_same_for_any_count_and_differ() -> None:
    table = colours(256)
    assert np.array_equal(table[:20], colours(20))
    assert len(np.unique(table, axis=0)) == 256
    assert np.abs(np.diff(colours(40).astype(int), axis=0)).max(axis=1).min() > 60


def test_the_overlay_is_an_rgb_image() -> None:
    image = HALVES.overlay()
    assert isinstance(image, Image.Image)
    assert image.mode == "RGB"


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
