"""Vocabularies folded for the scout on a CPU, and what happens where they are not."""

from pathlib import Path

import numpy as np
import pytest

from sed_trt.runtime import Segmenter, Vocabulary, vocabulary
from sed_trt.stages import CPU_STAGES, FOLD, FOLDED_SCOUT
from sed_trt.tests.fakes.manifest import without_stages
from sed_trt.train.scenes import make_scene

NAMES = ["sky", "grass", "sand", "water", "brick wall", "road", "red car", "tree", "dog"]


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    """A test scene."""
    return make_scene(3, 256, split="test").image


@pytest.fixture(params=["onnxruntime", "openvino"])
def backend(request: pytest.FixtureRequest) -> str:
    """The backends that fold."""
    pytest.importorskip(request.param)
    return str(request.param)


def logits0(segmenter: Segmenter, names: Vocabulary, image: np.ndarray, stage: str) -> np.ndarray:
    """The scout's logits by one of its two forms."""
    encoded = segmenter.encode(image)
    text = {"text": names.on_device(encoded.engines)}
    inputs = text if stage == "scout" else names.folded(encoded.engines)
    assert inputs is not None
    run = encoded.engines[stage].run({"embed": encoded.features["embed"], **inputs})
    assert run["votes0"].shape == (8, len(names))
    return np.asarray(run["logits0"])


def test_both_forms_of_the_scout_agree(
    tiny_bundle: Path, image: np.ndarray, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Several parts, the last of them smaller.
    monkeypatch.setattr(vocabulary, "_FOLD_PART", 4)
    segmenter = Segmenter(tiny_bundle, backend)
    names = segmenter.vocabulary(NAMES)
    plain, folded = (logits0(segmenter, names, image, stage) for stage in ("scout", FOLDED_SCOUT.name))
    assert np.abs(plain - folded).max() < 1e-3 * np.abs(plain).max()


def test_a_vocabulary_above_the_limit_is_not_folded(
    tiny_bundle: Path, image: np.ndarray, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    segmenter = Segmenter(tiny_bundle, backend)
    expected = segmenter(image, NAMES).labels
    monkeypatch.setattr(vocabulary, "FOLD_LIMIT", 0)
    again = Segmenter(tiny_bundle, backend)
    names = again.vocabulary(NAMES)
    result = again(image, names)
    assert names.folded(again.encode(image).engines) is None
    assert np.mean(result.labels == expected) > 0.999


def test_a_bundle_of_an_earlier_version_has_no_folded_scout(
    tiny_bundle: Path, image: np.ndarray, backend: str, tmp_path: Path
) -> None:
    older = without_stages(tiny_bundle, tmp_path / "older", CPU_STAGES)
    segmenter = Segmenter(older, backend)
    assert FOLD.name not in segmenter.bundle.manifest.stages
    labels = segmenter(image, NAMES).labels
    assert np.mean(labels == Segmenter(tiny_bundle, backend)(image, NAMES).labels) > 0.999
