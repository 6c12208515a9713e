"""The runtime on the exported sed-tiny."""

import gc
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sed_trt.errors import InputError
from sed_trt.runtime import Budget, KeepAll, Rejection, Segmenter, TopK, Vocabulary
from sed_trt.runtime import labels as labels_module

NAMES = [
    "sky", "grass", "sand", "water", "brick wall", "road", "snow", "wooden floor", "red car", "blue car",
    "house", "tree", "boat", "person", "dog", "sun", "cloud", "fence",
]  # fmt: skip


@pytest.fixture(scope="module")
def segmenter(tiny_bundle: Path) -> Segmenter:
    """One segmenter for the file."""
    return Segmenter(tiny_bundle)


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    """Noise over a gradient, uint8 (90, 130, 3)."""
    ramp = np.linspace(0, 200, 130)[None, :, None] * np.ones((90, 1, 3))
    noise = np.random.default_rng(0).integers(0, 50, (90, 130, 3))
    return (ramp + noise).astype(np.uint8)


def test_result_is_complete(segmenter: Segmenter, picture: np.ndarray) -> None:
    result = segmenter(picture, NAMES)
    assert result.labels.shape == result.scores.shape == (90, 130)
    assert result.labels.dtype == np.uint16
    assert result.scores.dtype == np.float32
    assert 0 <= result.scores.min() <= result.scores.max() <= 1
    assert result.names == tuple(NAMES)
    assert len(NAMES) >= result.kept[0] >= result.kept[1] >= result.kept[2] == len(result.kept_ids)
    assert set(np.unique(result.labels)) <= set(result.kept_ids.tolist())
    assert sum(result.shares().values()) == pytest.approx(1)
    assert result.overlay(legend=False).size == (130, 90)


def test_labels_are_where_the_logits_are_largest(segmenter: Segmenter, picture: np.ndarray) -> None:
    """Bands of the graph give what one piece gives; scores are the sigmoid's values."""
    whole = segmenter(picture, NAMES, KeepAll())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(labels_module, "MAX_BAND_VALUES", len(NAMES) * 130 * 7)
        banded = segmenter(picture, NAMES, KeepAll())
    assert np.array_equal(whole.labels, banded.labels)
    assert np.allclose(whole.scores, banded.scores, atol=1e-6)


@pytest.mark.parametrize(("policy", "count"), [(Budget(5), 5), (KeepAll(), 18)])
def test_rejection_policies(policy: Rejection, count: int, segmenter: Segmenter, picture: np.ndarray) -> None:
    result = segmenter(picture, NAMES, policy)
    assert result.kept == (count, count, count)
    assert len(result.kept_ids) == count
    assert (np.diff(result.kept_ids) > 0).all()


@pytest.mark.parametrize("count", [1, 2, 300])
def test_vocabularies_of_any_size(count: int, segmenter: Segmenter, picture: np.ndarray) -> None:
    result = segmenter(picture, [f"thing {number}" for number in range(count)], Budget(8))
    assert result.kept == (min(8, count),) * 3
    assert result.labels.max() < count


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 50, 3), (50, 1, 3)])
@pytest.mark.parametrize("short_side", [None, 64])
def test_tiny_pictures(shape: tuple[int, int, int], short_side: int | None, segmenter: Segmenter) -> None:
    result = segmenter(np.full(shape, 9, np.uint8), NAMES, TopK(1), short_side)
    assert result.labels.shape == shape[:2]


def test_labels_follow_the_exif_rotation(segmenter: Segmenter, picture: np.ndarray, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(picture).save(tmp_path / "turned.png", exif=exif)
    result = segmenter(tmp_path / "turned.png", NAMES)
    assert result.labels.shape == (130, 90)
    assert np.array_equal(result.labels, segmenter(np.rot90(picture, -1), NAMES).labels)


def test_stream_gives_what_single_calls_give(segmenter: Segmenter, picture: np.ndarray) -> None:
    pictures = [picture, picture[:40, :50].copy(), picture[::-1].copy(), picture[:, :30].copy(), picture]
    vocabulary = segmenter.vocabulary(NAMES)
    items = list(segmenter.stream(pictures, vocabulary, batch=2))
    assert [item.error for item in items] == [None] * 5
    for item, single in zip(items, pictures, strict=True):
        assert item.result is not None
        agreement = np.mean(item.result.labels == segmenter(single, vocabulary).labels)
        # A batch of another size may sum in another order.
        assert agreement > 0.999


def test_an_encoded_picture_serves_any_vocabulary_and_policy(
    segmenter: Segmenter, picture: np.ndarray
) -> None:
    encoded = segmenter.encode(picture, short_side=64)
    for names, policy in ((NAMES, TopK(8)), (NAMES, Budget(5)), (NAMES[:7], KeepAll())):
        ours, expected = segmenter(encoded, names, policy), segmenter(picture, names, policy, short_side=64)
        assert np.array_equal(ours.labels, expected.labels)
        assert np.array_equal(ours.scores, expected.scores)
        assert np.array_equal(ours.image, picture)


def test_a_picture_that_another_segmenter_encoded_is_refused(
    segmenter: Segmenter, tiny_bundle: Path, picture: np.ndarray
) -> None:
    encoded = Segmenter(tiny_bundle).encode(picture)
    with pytest.raises(InputError, match=r"^image: it was encoded by another segmenter; encode it with"):
        segmenter(encoded, NAMES)


def test_threads_share_a_segmenter(segmenter: Segmenter, picture: np.ndarray) -> None:
    vocabulary = segmenter.vocabulary(NAMES)
    cases: list[tuple[np.ndarray, Rejection]] = [
        (picture, TopK(2)),
        (picture[::-1].copy(), KeepAll()),
        (picture[:30], Budget(4)),
    ]
    expected = [segmenter(image, vocabulary, policy) for image, policy in cases]
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda case: segmenter(case[0], vocabulary, case[1]), cases * 3))
    for result, wanted in zip(results, expected * 3, strict=True):
        assert np.array_equal(result.labels, wanted.labels)
        assert np.array_equal(result.scores, wanted.scores)


def test_text_is_given_to_the_backend_once(
    tiny_bundle: Path, picture: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    segmenter = Segmenter(tiny_bundle, "onnxruntime")
    held: list[tuple[int, ...]] = []

    def hold(array: np.ndarray) -> np.ndarray:
        held.append(array.shape)
        return array

    monkeypatch.setattr(segmenter._engines, "to_device", hold)
    vocabulary, other = segmenter.vocabulary(NAMES), segmenter.vocabulary(NAMES[:3])
    for each in (vocabulary, other, vocabulary):
        segmenter(picture, each, short_side=None)
    assert [shape[0] for shape in held] == [18, 3]
    assert len(segmenter._held._held) == 2
    del vocabulary, each
    gc.collect()
    assert len(segmenter._held._held) == 1


def test_warmup(tiny_bundle: Path, picture: np.ndarray) -> None:
    segmenter = Segmenter(tiny_bundle, "onnxruntime")
    seen: list[tuple[int, int]] = []
    segmenter.warmup(NAMES, batch=2, progress=lambda done, total: seen.append((done, total)))
    segmenter.warmup()
    assert seen == [(done, 5) for done in range(1, 6)]
    with pytest.raises(InputError, match="batch: 0"):
        segmenter.warmup(batch=0)


def test_bad_stream_arguments_are_refused_at_once(segmenter: Segmenter) -> None:
    with pytest.raises(InputError, match="batch: 0"):
        segmenter.stream([], NAMES, batch=0)
    with pytest.raises(InputError, match="short_side"):
        segmenter.stream([], NAMES, short_side=0)
    with pytest.raises(InputError, match="holds no category names"):
        segmenter.stream([], [])


def test_vocabulary_of_another_shape_or_dtype(segmenter: Segmenter, picture: np.ndarray) -> None:
    with pytest.raises(InputError, match=r"its embeddings are float32 \(1, 80, 640\)"):
        segmenter(picture, Vocabulary(("sky",), np.zeros((1, 80, 640), np.float32)))
    text = segmenter.vocabulary(["sky"]).text.astype(np.float64)
    with pytest.raises(InputError, match=r"its embeddings are float64 .* expects float32"):
        segmenter(picture, Vocabulary(("sky",), text))


def test_a_cached_vocabulary_opens_no_text_engine(
    tiny_bundle: Path, picture: np.ndarray, tmp_path: Path
) -> None:
    folder = shutil.copytree(tiny_bundle, tmp_path / "bundle")
    Segmenter(folder).vocabulary(NAMES)
    (folder / "text.onnx").write_bytes(b"altered")
    segmenter = Segmenter(folder)
    assert segmenter(picture, NAMES).labels.shape == (90, 130)
    with pytest.raises(InputError, match=r"text\.onnx: was altered"):
        segmenter.vocabulary(["another"])


@pytest.mark.parametrize("file", ["decode2.onnx", "pixels.onnx", "tokenizer.json"])
def test_truncated_file_is_named(file: str, tiny_bundle: Path, picture: np.ndarray, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_bundle, tmp_path / "bundle")
    content = (folder / file).read_bytes()
    (folder / file).write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match=f"{file}: was altered"):
        Segmenter(folder)(picture, NAMES)


def test_backend_is_named(tiny_bundle: Path) -> None:
    segmenter = Segmenter(tiny_bundle, "onnxruntime")
    assert (segmenter.backend, segmenter.backend_reason) == ("onnxruntime", "asked for")
