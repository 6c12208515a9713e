"""Overlay and colours."""

import numpy as np
import pytest
from PIL import Image

from sed_trt.errors import InputError
from sed_trt.runtime.result import colours, draw_overlay
from sed_trt.tests.fakes.results import HALVES, result_of


def test_shares_are_of_what_is_present_largest_first() -> None:
    assert list(HALVES.shares().items()) == [("sky", 0.75), ("Bäckerei 木", 0.25)]


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


def test_draw_overlay_gives_an_rgb_picture() -> None:
    picture = draw_overlay(HALVES.image, HALVES.labels, HALVES.names, {0: 0.75, 2: 0.25})
    assert isinstance(picture, Image.Image)
    assert picture.mode == "RGB"
