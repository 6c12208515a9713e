"""Kept images: their identifiers, and the bounds in number, bytes and time."""

from typing import Any, cast

import numpy as np
import pytest

from sed_trt.runtime import EncodedImage
from sed_trt.serve.images_kept import KeptImages
from sed_trt.tests.fakes.engines import FakeEngines
from sed_trt.tests.serve.test_admission import Clock

# Of one image: 10 x 10 pixels and 100 floats.
BYTES = 700


def encoded(features: np.ndarray | None = None) -> EncodedImage:
    """An encoded image of `BYTES` bytes."""
    values = np.zeros((1, 100), dtype=np.float32) if features is None else features
    engines = cast(Any, FakeEngines())
    return EncodedImage(engines, np.zeros((10, 10, 3), dtype=np.uint8), {"embed": values}, {})


def put(images: KeptImages) -> str:
    """The identifier of a new image that is kept."""
    name = images.put("bundle", encoded())
    assert name is not None
    return name


def test_an_image_is_there_again() -> None:
    images = KeptImages(2, 10 * BYTES, 60)
    name = put(images)
    kept = images.get(name)
    assert kept is not None
    assert kept.bundle == "bundle"
    assert kept.encoded.nbytes == images.nbytes == BYTES
    assert images.get("other") is None
    assert images.remove(name)
    assert not images.remove(name)
    assert images.get(name) is None


def test_identifiers_are_long_and_differ() -> None:
    images = KeptImages(50, 100 * BYTES, 60)
    names = {put(images) for _ in range(50)}
    assert len(names) == 50
    assert min(len(name) for name in names) >= 24


@pytest.mark.parametrize(("count", "megabytes"), [(2, 100 * BYTES), (100, 2 * BYTES)])
def test_the_one_used_longest_ago_makes_room(count: int, megabytes: int) -> None:
    images = KeptImages(count, megabytes, 60)
    first, second = put(images), put(images)
    assert images.get(first) is not None
    third = put(images)
    assert images.get(second) is None
    assert images.get(first) is not None
    assert images.get(third) is not None
    assert len(images) == 2


def test_images_expire_after_their_last_use() -> None:
    clock = Clock()
    images = KeptImages(5, 100 * BYTES, 60, clock)
    first, second = put(images), put(images)
    clock.now = 50
    assert images.get(first) is not None
    clock.now = 100
    images.drop_expired()
    assert len(images) == 1
    assert images.get(second) is None
    assert images.get(first) is not None


@pytest.mark.parametrize(("count", "most_bytes"), [(0, 10 * BYTES), (5, BYTES - 1)])
def test_what_never_fits_is_not_kept_and_displaces_nothing(count: int, most_bytes: int) -> None:
    images = KeptImages(count, most_bytes, 60)
    assert images.put("bundle", encoded()) is None
    assert len(images) == 0


def test_an_image_of_a_batch_does_not_keep_the_others() -> None:
    batch = np.ones((4, 100), dtype=np.float32)
    images = KeptImages(5, 100 * BYTES, 60)
    name = images.put("bundle", encoded(batch[1:2]))
    kept = images.get(str(name))
    assert kept is not None
    features = cast(np.ndarray, kept.encoded.features["embed"])
    assert features.base is None
    assert np.array_equal(features, batch[1:2])
