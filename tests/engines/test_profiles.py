"""Optimization profiles and the choice among them."""

import hashlib
import json
from pathlib import Path

import pytest

from sed_trt.bundle import Bundle, Manifest
from sed_trt.engines.profiles import (
    TILE_SIDE,
    Limits,
    Profile,
    Shape,
    category_buckets,
    choose_profile,
    label_rows,
    stage_profiles,
    tile_rows,
)
from sed_trt.errors import InputError
from sed_trt.stages import GPU_STAGES
from sed_trt.tests.fakes.manifest import table_manifest


@pytest.fixture
def manifest() -> Manifest:
    """One with the sizes of sed-tiny."""
    return table_manifest(256, embed_dim=128, context_length=40, channels=16, templates=("{}",) * 8)


def ranges(profiles: tuple[Profile, ...], name: str, axis: int = 0) -> list[Shape]:
    """Min, opt and max size of an axis in each profile."""
    return [tuple(shape[axis] for shape in profile[name]) for profile in profiles]


@pytest.mark.parametrize(
    ("most", "buckets"),
    [
        (1, (1,)),
        (8, (8,)),
        (9, (8, 9)),
        (100, (8, 16, 32, 64, 100)),
        (1024, (8, 16, 32, 64, 128, 256, 512, 1024)),
        (2000, (8, 16, 32, 64, 128, 256, 512, 1024, 2000)),
    ],
)
def test_buckets(most: int, buckets: tuple[int, ...]) -> None:
    assert category_buckets(most) == buckets


def test_every_dynamic_input_has_its_shapes_in_order(tiny_bundle: Path) -> None:
    manifest = Bundle.open(tiny_bundle).manifest
    for name, profiles in stage_profiles(manifest, Limits()).items():
        dynamic = {
            tensor.name: tensor.shape
            for tensor in manifest.stages[name].inputs
            if any(isinstance(size, str) for size in tensor.shape)
        }
        assert profiles
        for profile in profiles:
            assert profile.keys() == dynamic.keys()
            for tensor, three in profile.items():
                for size, low, opt, high in zip(dynamic[tensor], *three, strict=True):
                    assert 1 <= low <= opt <= high
                    assert isinstance(size, str) or low == high == size


NARROW = [(1, 16, 32), (33, 64, 128), (129, 256, 1024)]


@pytest.mark.parametrize(
    ("stage", "tensor"),
    [("scout", "text"), ("decode1", "kept0"), ("decode2", "kept1"), ("decode3", "kept2"), ("label", "kept")],
)
def test_the_axis_of_the_work_is_narrow(stage: str, tensor: str, manifest: Manifest) -> None:
    assert ranges(stage_profiles(manifest, Limits())[stage], tensor) == NARROW
    assert ranges(stage_profiles(manifest, Limits(20))[stage], tensor) == [(1, 16, 20)]
    assert ranges(stage_profiles(manifest, Limits(33))[stage], tensor) == [(1, 16, 32), (33, 33, 33)]
    assert ranges(stage_profiles(manifest, Limits(2000))[stage], tensor)[-1] == (129, 256, 2000)


def test_a_decoder_stage_has_one_category_axis(manifest: Manifest) -> None:
    for number, names in ((1, ["kept_text"]), (2, ["kept_x1", "kept_cost1"]), (3, ["kept_x2", "kept_cost2"])):
        profiles = stage_profiles(manifest, Limits())[f"decode{number}"]
        assert all(profile.keys() == {*names, f"kept{number - 1}"} for profile in profiles)
        assert [ranges(profiles, name) for name in names] == [NARROW] * len(names)


def test_gathers_take_all_numbers_in_one_profile(manifest: Manifest) -> None:
    for number, names in ((1, ["text"]), (2, ["x1", "cost1"]), (3, ["x2", "cost2"])):
        for name in (*names, f"kept{number - 1}"):
            assert ranges(stage_profiles(manifest, Limits(500))[f"gather{number}"], name) == [(1, 32, 500)]
            assert ranges(stage_profiles(manifest, Limits(20))[f"gather{number}"], name) == [(1, 20, 20)]


def test_limits_of_images(manifest: Manifest) -> None:
    profiles = stage_profiles(manifest, Limits(max_batch=6, max_side=900))
    assert ranges(profiles["image"], "pixels") == [(1, 1, 1), (2, 4, 6)]
    assert ranges(profiles["pixels"], "image", 1) == ranges(profiles["pixels"], "image", 2) == [(1, 640, 900)]
    # Output pixels come in bands, whatever the size of the input.
    assert set(ranges(profiles["label"], "columns")) == {(1, 640, 4096)}
    assert ranges(profiles["label"], "rows") == [(1, 512, 512), (1, 128, 128), (1, 16, 16)]
    assert ranges(profiles["text"], "tokens") == [(1, 256, 256)]
    single = stage_profiles(manifest, Limits(max_batch=1, max_side=100))
    assert ranges(single["image"], "pixels") == [(1, 1, 1)]
    assert ranges(single["pixels"], "image", 1) == [(1, 100, 100)]


@pytest.mark.parametrize(
    ("limits", "digest"),
    [
        (Limits(), "2ec4e5227d0e"),
        (Limits(150, 1, 900), "26f68a8d962d"),
        (Limits(20, 6), "32765de8016f"),
        (Limits(2000, 2, 8000), "fe6045cc2c1d"),
    ],
)
def test_profiles_are_those_of_stored_engines(limits: Limits, digest: str, manifest: Manifest) -> None:
    """The keys of engines that are stored in bundles depend on the profiles, so they must not change."""
    content = json.dumps(stage_profiles(manifest, limits), sort_keys=True)
    assert hashlib.sha256(content.encode()).hexdigest()[:12] == digest


@pytest.mark.parametrize(
    ("categories", "rows"),
    [(1, 512), (32, 512), (33, 128), (128, 128), (129, 16), (1024, 16), (1025, 15), (2048, 8), (70_000, 1)],
)
def test_rows_of_a_band(categories: int, rows: int) -> None:
    assert label_rows(categories) == rows


@pytest.mark.parametrize("most", [20, 1024, 5000, 40_000])
def test_label_takes_bounded_memory(most: int, manifest: Manifest) -> None:
    for profile in stage_profiles(manifest, Limits(most))["label"]:
        (categories,), (rows,), (columns,) = (profile[name][2] for name in ("kept", "rows", "columns"))
        # 256 MiB of float32; beyond the default limit as much per 1024 categories.
        assert categories * rows * columns <= 2**26 * max(1, most / 1024)


@pytest.mark.parametrize("field", ["max_categories", "max_batch", "max_side"])
def test_limits_below_one(field: str) -> None:
    with pytest.raises(InputError, match=f"{field.replace('_', ' ')}: 0 is too few"):
        Limits(**{field: 0})


@pytest.mark.parametrize(
    ("kept", "index"), [(1, 0), (32, 0), (33, 1), (128, 1), (129, 2), (256, 2), (1024, 2)]
)
def test_choice_by_the_kept_count(kept: int, index: int, manifest: Manifest) -> None:
    profiles = stage_profiles(manifest, Limits())["decode1"]
    shapes = {"kept0": (kept,), "kept_text": (kept, *profiles[0]["kept_text"][0][1:])}
    assert choose_profile(profiles, shapes) == index


def test_the_narrowest_is_chosen_in_any_order() -> None:
    wide: Profile
    narrow: Profile
    wide, narrow = {"x": ((1,), (8,), (64,))}, {"x": ((1,), (2,), (8,))}
    assert choose_profile([wide, narrow], {"x": (4,)}) == 1
    assert choose_profile([narrow, wide], {"x": (4,)}) == 0
    assert choose_profile([wide, narrow], {"x": (9,)}) == 0


@pytest.mark.parametrize(
    ("stage", "name", "shape", "message"),
    [
        (
            "decode1",
            "kept0",
            (1025,),
            r"decode1: axis 0 of kept0 is 1025, .* at most 1024; .*--max-categories 1025",
        ),
        ("scout", "text", (2000, 8, 128), "scout: axis 0 of text is 2000, .*--max-categories 2000"),
        ("image", "pixels", (9, 3, 256, 256), "image: axis 0 of pixels is 9, .*--max-batch 9"),
        ("pixels", "image", (1, 10, 5000, 3), "pixels: axis 2 of image is 5000, .*--max-side 5000"),
        ("text", "tokens", (257, 40), "text: axis 0 of tokens is 257, .*smaller parts"),
        ("label", "rows", (4097,), "label: axis 0 of rows is 4097, .*smaller parts"),
        (
            "image",
            "pixels",
            (1, 3, 300, 256),
            "image: axis 2 of pixels is 300, expected 256, as the manifest",
        ),
        ("image", "pixels", (3, 256, 256), "image: pixels has 3 axes, expected 4"),
        ("decode1", "kept0", (0,), "decode1: axis 0 of kept0 is 0, expected 1 to 1024"),
    ],
)
def test_misfits(stage: str, name: str, shape: Shape, message: str, manifest: Manifest) -> None:
    profiles = stage_profiles(manifest, Limits())[stage]
    shapes = {other: opt for other, (_, opt, _) in profiles[0].items()} | {name: shape}
    with pytest.raises(InputError, match=message):
        choose_profile(profiles, shapes, stage)


def test_limit_of_one_image(manifest: Manifest) -> None:
    profiles = stage_profiles(manifest, Limits(max_batch=1))["image"]
    with pytest.raises(InputError, match=r"pixels is 2, the engines take at most 1; .*--max-batch 2"):
        choose_profile(profiles, {"pixels": (2, 3, 256, 256)}, "image")


def test_misfit_between_profiles() -> None:
    profiles: list[Profile] = [{"x": ((1,), (2,), (3,))}, {"x": ((8,), (9,), (10,))}]
    with pytest.raises(InputError, match="no profile takes"):
        choose_profile(profiles, {"x": (5,)})


def test_a_gpu_labels_in_tiles() -> None:
    manifest = table_manifest(256, embed_dim=128, context_length=40, channels=16, more_stages=GPU_STAGES)
    profiles = stage_profiles(manifest, Limits())
    assert "label" not in profiles
    assert set(ranges(profiles["label_gpu"], "columns")) == {(1, 640, TILE_SIDE)}
    assert ranges(profiles["label_gpu"], "rows") == [(1, 640, 4096), (1, 640, 1024), (1, 128, 128)]
    for profile in profiles["label_gpu"]:
        (categories,), (rows,), (columns,) = (profile[name][2] for name in ("kept", "rows", "columns"))
        # One map of all categories, up-sampled, in float32.
        assert 4 * categories * rows * columns == 2**29
        assert rows == tile_rows(categories)
