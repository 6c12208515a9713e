"""Temporal smoothing against its formula, and the measure of flicker against counts by hand."""

from pathlib import Path

import numpy as np
import pytest

from sed_trt.bundle import Bundle
from sed_trt.engines.ort.cpu import OnnxRuntimeEngines
from sed_trt.engines.ort.cuda import OnnxRuntimeCudaEngines, OnnxRuntimeDevice
from sed_trt.errors import InputError
from sed_trt.runtime.pipeline import DecodedImage
from sed_trt.tests.fakes.engines import FakeEngines
from sed_trt.video.flicker import STILL, Flicker, ImageChange, sample
from sed_trt.video.smoothing import CHANGE, Smoother, probabilities

SIDE = 16
WEIGHT = 0.75


def decoded(logits: dict[int, float], brightness: int = 100) -> DecodedImage:
    """A frame of one brightness, whose kept categories have the same logit at every position."""
    ids = np.array(sorted(logits), dtype=np.int64)
    maps = np.stack([np.full((SIDE, SIDE), logits[index], np.float32) for index in ids.tolist()])
    # As after a decoder that pads.
    maps = np.concatenate([maps, np.full((2, SIDE, SIDE), -60000, np.float32)])
    return DecodedImage(np.full((40, 60, 3), brightness, np.uint8), maps, ids, (5, 4, len(ids)), {})


def sigmoid(value: float) -> float:
    return float(1 / (1 + np.exp(-value)))


def blended(smoother: Smoother, frame: DecodedImage) -> dict[int, float]:
    """Probability by category of a frame after smoothing, on engines without buckets."""
    result = smoother(FakeEngines(), frame)
    assert result.image is frame.image
    assert result.kept == frame.kept
    logits = np.asarray(result.logits)
    assert logits.shape == (len(result.kept_ids), SIDE, SIDE)
    assert np.ptp(logits, axis=(1, 2)).max() < 1e-6
    return {int(index): sigmoid(logits[row, 0, 0]) for row, index in enumerate(result.kept_ids)}


def test_the_first_frame_is_its_own() -> None:
    assert blended(Smoother(WEIGHT), decoded({1: 2.0, 4: -3.0})) == pytest.approx(
        {1: sigmoid(2.0), 4: sigmoid(-3.0)}
    )


def test_probabilities_are_blended_with_those_before() -> None:
    smoother = Smoother(WEIGHT)
    blended(smoother, decoded({1: 2.0, 4: -3.0}))
    # Category 4 is rejected and counts as 0; category 2 is new.
    expected = {
        1: WEIGHT * sigmoid(2.0) + (1 - WEIGHT) * sigmoid(-1.0),
        2: (1 - WEIGHT) * sigmoid(0.5),
        4: WEIGHT * sigmoid(-3.0),
    }
    assert blended(smoother, decoded({1: -1.0, 2: 0.5})) == pytest.approx(expected, rel=1e-4)


def test_the_past_counts_less_where_the_image_changes() -> None:
    smoother = Smoother(WEIGHT)
    blended(smoother, decoded({1: 2.0}, brightness=100))
    weight = WEIGHT * np.exp(-((8 / CHANGE) ** 2))
    expected = weight * sigmoid(2.0) + (1 - weight) * sigmoid(-1.0)
    assert blended(smoother, decoded({1: -1.0}, brightness=108)) == pytest.approx({1: expected}, rel=1e-4)
    # After a cut nothing of it is left.
    assert blended(smoother, decoded({3: -1.0}, brightness=250)) == pytest.approx(
        {3: sigmoid(-1.0)}, rel=1e-4
    )


def test_rejected_categories_are_forgotten() -> None:
    smoother = Smoother(WEIGHT)
    blended(smoother, decoded({1: 9.0, 2: 0.0}))
    counts = [len(blended(smoother, decoded({1: 9.0}))) for _ in range(20)]
    assert counts[0] == 2
    assert counts[-1] == 1


def test_logits_are_padded_to_the_buckets() -> None:
    engines = FakeEngines(buckets=(4, 8))
    result = Smoother(WEIGHT)(engines, decoded({0: 1.0, 3: 2.0, 7: -1.0}))
    logits = np.asarray(result.logits)
    assert logits.shape == (4, SIDE, SIDE)
    assert (logits[3] < -50_000).all()
    assert result.kept_ids.tolist() == [0, 3, 7]


def test_certain_probabilities_stay_finite_and_ordered() -> None:
    smoother = Smoother(WEIGHT)
    result = smoother(FakeEngines(), decoded({0: 90.0, 1: -60.0, 2: -70.0}))
    logits = np.asarray(result.logits)[:, 0, 0]
    assert np.isfinite(logits).all()
    assert logits[0] > logits[1] > logits[2]


@pytest.mark.parametrize("weight", [-0.1, 1.0, float("nan")])
def test_other_weights_are_refused(weight: float) -> None:
    with pytest.raises(InputError, match=r"smooth: .* is out of range"):
        Smoother(weight)


def test_probabilities_are_the_same_from_a_device(tiny_bundle: Path) -> None:
    bundle = Bundle.open(tiny_bundle)
    side = bundle.manifest.image_size // 4
    logits = np.random.default_rng(0).normal(0, 4, (3, side, side)).astype(np.float32)
    expected = probabilities(OnnxRuntimeEngines(bundle, None, "asked for")["label"], logits, 2)
    device = OnnxRuntimeCudaEngines(bundle, None, "asked for", OnnxRuntimeDevice("cpu"))
    actual = probabilities(device["label"], device.to_device(logits), 2)
    np.testing.assert_allclose(actual, expected, atol=1e-6)
    np.testing.assert_allclose(expected, 1 / (1 + np.exp(-logits[:2])), atol=1e-6)


def test_before_and_after_are_measured() -> None:
    smoother = Smoother(WEIGHT)
    for winner in (1, 1, 2, 1):
        blended(smoother, decoded({1: 0.0, 2: 1.0 if winner == 2 else -1.0}))
    assert smoother.before.summary() == pytest.approx({"flicker": 2 / 3, "changed": 2 / 3, "still": 1.0})
    assert smoother.after.summary() == {"flicker": 0.0, "changed": 0.0, "still": 1.0}


def test_flicker_counts_pixels_whose_image_stays_the_same() -> None:
    change, flicker = ImageChange(4), Flicker()
    first = np.full((8, 8, 3), 50, np.uint8)
    second = first.copy()
    # The upper half changes clearly, the lower half hardly.
    second[:4, :, 1] += STILL + 1
    second[4:, :, 2] += STILL
    labels = np.zeros((4, 4), np.int64)
    flicker.update(labels, change.update(first))
    assert flicker.summary() == {"flicker": None, "changed": None, "still": None}
    other = labels.copy()
    other[0] = 1
    other[3, :2] = 2
    flicker.update(other, change.update(second))
    assert flicker.summary() == {"flicker": 2 / 8, "changed": 6 / 16, "still": 8 / 16}
    # Pairs add up.
    flicker.update(other, change.update(second))
    assert flicker.summary() == {"flicker": 2 / 24, "changed": 6 / 32, "still": 24 / 32}


def test_noise_of_single_pixels_is_no_change_of_the_image() -> None:
    noise = np.random.default_rng(0).integers(-20, 21, (2, 128, 128, 3))
    change = ImageChange(8)
    assert change.update((128 + noise[0]).astype(np.uint8)) is None
    difference = change.update((128 + noise[1]).astype(np.uint8))
    assert difference is not None
    assert difference.max() <= STILL


def test_sample_takes_the_centres_of_cells() -> None:
    labels = np.arange(6 * 8).reshape(6, 8)
    assert sample(labels, 2).tolist() == [[1 * 8 + 2, 1 * 8 + 6], [4 * 8 + 2, 4 * 8 + 6]]
    assert sample(labels[:1, :1], 3).tolist() == [[0] * 3] * 3
