"""`Segmenter` on the exported sed-tiny, and on stages in numpy where the network does not matter."""

import gc
import os
import shutil
import socket
import threading
import weakref
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sed_trt import host
from sed_trt.errors import InputError
from sed_trt.runtime import Budget, KeepAll, Rejection, Segmenter, TopK, Vocabulary
from sed_trt.tests.fakes.bundle import write_fake_bundle
from sed_trt.tests.fakes.engines import COLOURS, FakeEngines, colour_vocabulary, quarters
from sed_trt.tests.fakes.results import scores_of

NAMES = [
    "sky", "grass", "sand", "water", "brick wall", "road", "snow", "wooden floor", "red car", "blue car",
    "house", "tree", "boat", "person", "dog", "sun", "cloud", "fence",
]  # fmt: skip


@pytest.fixture(scope="module")
def segmenter(tiny_bundle: Path) -> Segmenter:
    """One segmenter for the file."""
    return Segmenter(tiny_bundle)


@pytest.fixture
def engines() -> FakeEngines:
    """Stages in numpy."""
    return FakeEngines()


@pytest.fixture
def colours(engines: FakeEngines, tmp_path: Path) -> Segmenter:
    """A segmenter on stages in numpy, which know the categories red, green, blue and white."""
    return Segmenter(write_fake_bundle(tmp_path / "fake"), engines=engines)


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    """Noise over a gradient, uint8 (90, 130, 3)."""
    ramp = np.linspace(0, 200, 130)[None, :, None] * np.ones((90, 1, 3))
    noise = np.random.default_rng(0).integers(0, 50, (90, 130, 3))
    return (ramp + noise).astype(np.uint8)


def test_result_is_complete(segmenter: Segmenter, image: np.ndarray) -> None:
    result = segmenter(image, NAMES)
    assert result.labels.shape == scores_of(result).shape == (90, 130)
    assert result.labels.dtype == np.uint16
    assert scores_of(result).dtype == np.float32
    assert 0 <= scores_of(result).min() <= scores_of(result).max() <= 1
    assert result.names == tuple(NAMES)
    assert len(NAMES) >= result.kept[0] >= result.kept[1] >= result.kept[2] == len(result.kept_ids)
    assert set(np.unique(result.labels)) <= set(result.kept_ids.tolist())
    assert sum(result.shares().values()) == pytest.approx(1)
    assert result.overlay(legend=False).size == (130, 90)


def test_labels_are_where_the_logits_are_largest(segmenter: Segmenter, image: np.ndarray) -> None:
    """Bands of the graph give what one piece gives; scores are the sigmoid's values."""
    whole = segmenter(image, NAMES, KeepAll())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(host, "MAX_BAND_VALUES", len(NAMES) * 130 * 7)
        banded = segmenter(image, NAMES, KeepAll())
    assert np.array_equal(whole.labels, banded.labels)
    assert np.allclose(scores_of(whole), scores_of(banded), atol=1e-6)


def test_names_reach_their_pixels(colours: Segmenter) -> None:
    result = colours(quarters(), ["white", "blue", "green", "red"], short_side=None)
    assert [[result.names[label] for label in row] for row in result.labels[::39, ::59]] == [
        ["red", "green"],
        ["blue", "white"],
    ]


@pytest.mark.parametrize(("policy", "count"), [(Budget(2), 2), (KeepAll(), 4)])
def test_rejection_policies(policy: Rejection, count: int, colours: Segmenter) -> None:
    result = colours(quarters(), list(COLOURS), policy)
    assert result.kept == (count, count, count)
    assert len(result.kept_ids) == count
    assert (np.diff(result.kept_ids) > 0).all()


@pytest.mark.parametrize("count", [1, 2, 300])
def test_vocabularies_of_any_size(count: int, segmenter: Segmenter, image: np.ndarray) -> None:
    manifest = segmenter.bundle.manifest
    text = np.random.default_rng(0).normal(size=(count, len(manifest.templates), manifest.embed_dim))
    text = (text / np.linalg.norm(text, axis=-1, keepdims=True)).astype(np.float32)
    result = segmenter(image, Vocabulary(tuple(map(str, range(count))), text), Budget(8))
    assert result.kept == (min(8, count),) * 3
    assert result.labels.max() < count


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 50, 3), (50, 1, 3)])
@pytest.mark.parametrize("short_side", [None, 64])
def test_tiny_images(shape: tuple[int, int, int], short_side: int | None, segmenter: Segmenter) -> None:
    result = segmenter(np.full(shape, 9, np.uint8), NAMES, TopK(1), short_side)
    assert result.labels.shape == shape[:2]


def test_labels_follow_the_exif_rotation(colours: Segmenter, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(quarters()).save(tmp_path / "turned.png", exif=exif)
    result = colours(tmp_path / "turned.png", colour_vocabulary())
    assert result.labels.shape == (60, 40)
    assert np.array_equal(result.labels, colours(np.rot90(quarters(), -1), colour_vocabulary()).labels)


def test_stream_gives_what_single_calls_give(segmenter: Segmenter, image: np.ndarray) -> None:
    images = [image, image[:40, :50].copy(), image[::-1].copy(), image[:, :30].copy(), image]
    vocabulary = segmenter.vocabulary(NAMES)
    items = list(segmenter.stream(images, vocabulary, batch=2))
    assert [item.error for item in items] == [None] * 5
    for item, single in zip(items, images, strict=True):
        assert item.result is not None
        agreement = np.mean(item.result.labels == segmenter(single, vocabulary).labels)
        # A batch of another size may sum in another order.
        assert agreement > 0.999


def test_an_encoded_image_serves_any_vocabulary_and_policy(segmenter: Segmenter, image: np.ndarray) -> None:
    encoded = segmenter.encode(image, short_side=64)
    for names, policy in ((NAMES, TopK(8)), (NAMES, Budget(5)), (NAMES[:7], KeepAll())):
        ours, expected = segmenter(encoded, names, policy), segmenter(image, names, policy, short_side=64)
        assert np.array_equal(ours.labels, expected.labels)
        assert np.array_equal(scores_of(ours), scores_of(expected))
        assert np.array_equal(ours.image, image)


def test_an_image_that_another_segmenter_encoded_is_refused(colours: Segmenter) -> None:
    encoded = Segmenter(colours.bundle.path, engines=FakeEngines()).encode(quarters())
    with pytest.raises(InputError, match=r"^image: it was encoded by another segmenter; encode it with"):
        colours(encoded, colour_vocabulary())


def test_threads_share_a_segmenter(segmenter: Segmenter, image: np.ndarray) -> None:
    vocabulary = segmenter.vocabulary(NAMES)
    cases: list[tuple[np.ndarray, Rejection]] = [
        (image, TopK(2)),
        (image[::-1].copy(), KeepAll()),
        (image[:30], Budget(4)),
    ]
    expected = [segmenter(image, vocabulary, policy) for image, policy in cases]
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda case: segmenter(case[0], vocabulary, case[1]), cases * 3))
    for result, wanted in zip(results, expected * 3, strict=True):
        assert np.array_equal(result.labels, wanted.labels)
        assert np.array_equal(scores_of(result), scores_of(wanted))


def test_text_is_copied_to_the_device_once(colours: Segmenter, engines: FakeEngines) -> None:
    vocabulary, other = colours.vocabulary(list(COLOURS)), colours.vocabulary(["red", "blue"])
    for each in (vocabulary, other, vocabulary):
        colours(quarters(), each)
    list(colours.stream([quarters()] * 3, other))
    colours.warmup(vocabulary)
    assert engines.uploads == 2


@pytest.mark.parametrize("separator", [", ", "; ", "\n"])
def test_a_text_lists_categories(separator: str, colours: Segmenter) -> None:
    text = separator.join(COLOURS)
    assert colours.vocabulary(text) is colours.vocabulary(list(COLOURS))
    result = colours(quarters(), text)
    assert result.names == tuple(COLOURS)
    assert result.shares() == dict.fromkeys(COLOURS, 0.25)
    assert [item.result is not None for item in colours.stream([quarters()], text)] == [True]
    colours.warmup(text)


@pytest.mark.parametrize("size", [1, 4])
def test_the_vocabularies_used_last_stay_in_memory(size: int, engines: FakeEngines, tmp_path: Path) -> None:
    segmenter = Segmenter(write_fake_bundle(tmp_path / "fake"), vocabularies=size, engines=engines)
    last = [segmenter.vocabulary([f"name {number}"]) for number in range(6)][-size:]
    assert [segmenter.vocabulary(each.names) for each in last] == last


def test_names_that_are_embedded_block_no_other_names(
    colours: Segmenter, engines: FakeEngines, monkeypatch: pytest.MonkeyPatch
) -> None:
    entered, gate, run = threading.Event(), threading.Event(), engines["text"].run

    def blocking_run(inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        if len(inputs["tokens"]) == 1:
            entered.set()
            assert gate.wait(60)
        return run(inputs)

    monkeypatch.setattr(engines["text"], "run", blocking_run)
    with ThreadPoolExecutor(1) as pool:
        blocked = pool.submit(colours, quarters(), ["red"])
        assert entered.wait(60)
        assert colours(quarters(), ["green", "blue"]).names == ("green", "blue")
        assert not blocked.done()
        gate.set()
        assert blocked.result(60).names == ("red",)
    # Both are in memory.
    monkeypatch.setenv("SED_TRT_CACHE", "/nowhere")
    texts = len(engines["text"].shapes)
    for names in (["red"], ["green", "blue"]) * 3:
        colours(quarters(), names)
    assert len(engines["text"].shapes) == texts


def test_no_vocabulary_in_memory_is_refused(colours: Segmenter) -> None:
    with pytest.raises(InputError, match="vocabularies: 0 is too few, expected at least 1"):
        Segmenter(colours.bundle.path, vocabularies=0, engines=FakeEngines())


def test_device_memory_goes_with_the_last_user_of_a_vocabulary(
    colours: Segmenter, engines: FakeEngines, monkeypatch: pytest.MonkeyPatch
) -> None:
    copies: list[Any] = []

    def to_device(array: np.ndarray) -> np.ndarray:
        copy = array.copy()
        copies.append(weakref.ref(copy))
        return copy

    monkeypatch.setattr(engines, "to_device", to_device)
    vocabulary = colour_vocabulary()
    colours(quarters(), vocabulary)
    assert copies[0]() is not None
    del vocabulary
    gc.collect()
    assert copies[0]() is None


def test_warmup(tiny_bundle: Path, image: np.ndarray) -> None:
    segmenter = Segmenter(tiny_bundle, "onnxruntime")
    seen: list[tuple[int, int]] = []
    segmenter.warmup(NAMES, batch=2, progress=lambda done, total: seen.append((done, total)))
    segmenter.warmup()
    assert seen == [(done, 3) for done in range(1, 4)]
    with pytest.raises(InputError, match="batch: 0"):
        segmenter.warmup(batch=0)


def test_bad_stream_arguments_are_refused_at_once(colours: Segmenter) -> None:
    with pytest.raises(InputError, match="batch: 0"):
        colours.stream([], NAMES, batch=0)
    with pytest.raises(InputError, match="short_side"):
        colours.stream([], NAMES, short_side=0)
    with pytest.raises(InputError, match="holds no category names"):
        colours.stream([], [])


def test_vocabulary_of_another_shape_or_dtype(colours: Segmenter) -> None:
    with pytest.raises(InputError, match=r"are float32 \(1, 80, 640\), .* expects float32 \(1, 1, 3\)"):
        colours(quarters(), Vocabulary(("sky",), np.zeros((1, 80, 640), np.float32)))
    text = colours.vocabulary(["red"]).text.astype(np.float64)
    with pytest.raises(InputError, match=r"its embeddings are float64 .* expects float32"):
        colours(quarters(), Vocabulary(("red",), text))


def make_socket(path: Path) -> None:
    # The name stays in the file system when the socket is closed.
    with socket.socket(socket.AF_UNIX) as server:
        folder = os.open(path.parent, os.O_RDONLY)
        # Names of sockets may have 108 bytes, fewer than a path.
        server.bind(f"/proc/self/fd/{folder}/{path.name}")
        os.close(folder)


@pytest.mark.parametrize("make", [os.mkfifo, make_socket, lambda path: path.symlink_to("/dev/zero")])
def test_what_is_no_file_is_refused_at_once(
    make: Callable[[Path], None], colours: Segmenter, tmp_path: Path
) -> None:
    """A pipe without a writer would otherwise be waited for without end."""
    path = tmp_path / "image.png"
    make(path)
    with pytest.raises(InputError, match=r"image\.png: is a pipe, socket or device, expected an image file"):
        colours(path, colour_vocabulary())
    items = list(colours.stream([quarters(), path, quarters()], colour_vocabulary()))
    assert [item.error is None for item in items] == [True, False, True]
    with pytest.raises(InputError, match=r"image\.png: is a file, expected a bundle folder"):
        Segmenter(path)


def test_a_name_with_a_null_byte(colours: Segmenter) -> None:
    for path in ("a\0b", Path("a\0b.png")):
        with pytest.raises(InputError, match=r"^'a\\x00b.*': no such file, a file name holds no null byte"):
            colours(path, colour_vocabulary())
    with pytest.raises(InputError, match="no such bundle folder"):
        Segmenter("a\0b")


def test_a_cached_vocabulary_opens_no_text_engine(
    tiny_bundle: Path, image: np.ndarray, tmp_path: Path
) -> None:
    folder = shutil.copytree(tiny_bundle, tmp_path / "bundle")
    Segmenter(folder).vocabulary(NAMES)
    (folder / "text.onnx").write_bytes(b"altered")
    segmenter = Segmenter(folder)
    assert segmenter(image, NAMES).labels.shape == (90, 130)
    with pytest.raises(InputError, match=r"text\.onnx: was altered"):
        segmenter.vocabulary(["another"])


@pytest.mark.parametrize("file", ["decode2.onnx", "pixels.onnx", "tokenizer.json"])
def test_truncated_file_is_named(file: str, tiny_bundle: Path, image: np.ndarray, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_bundle, tmp_path / "bundle")
    content = (folder / file).read_bytes()
    (folder / file).write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match=f"{file}: was altered"):
        Segmenter(folder)(image, NAMES)


def test_backend_is_named(tiny_bundle: Path) -> None:
    segmenter = Segmenter(tiny_bundle, "onnxruntime")
    assert (segmenter.backend, segmenter.backend_reason) == ("onnxruntime", "asked for")


def test_a_batch_equals_its_images_alone(colours: Segmenter, engines: FakeEngines) -> None:
    pictures = [quarters(40, 60), quarters(64, 32)[::-1].copy()]
    prepared = [colours.prepare(picture, None) for picture in pictures]
    encoded = colours.encode_batch(prepared)
    assert [shapes["pixels"][0] for shapes in engines["image"].shapes] == [2]
    for picture, each in zip(pictures, encoded, strict=True):
        expected = colours(picture, list(COLOURS), short_side=None)
        assert np.array_equal(colours(each, list(COLOURS)).labels, expected.labels)
        alone = each.detached()
        assert all(getattr(features, "base", None) is None for features in alone.features.values())
        assert alone.nbytes == each.nbytes
        assert np.array_equal(colours(alone, list(COLOURS)).labels, expected.labels)


def test_a_loaded_vocabulary_waits_for_nothing(colours: Segmenter, engines: FakeEngines) -> None:
    vocabulary = colours.load(["red", "blue"])
    assert engines.uploads == 1
    assert vocabulary.nbytes == vocabulary.text.nbytes == 2 * 3 * 4
    colours(quarters(), vocabulary)
    assert engines.uploads == 1


def test_memory_of_a_vocabulary_counts_what_is_folded(segmenter: Segmenter) -> None:
    names = ["a name", "another name"]
    embedded = segmenter.vocabulary(names)
    assert embedded.nbytes == embedded.text.nbytes
    assert segmenter.load(names) is embedded
    assert embedded.nbytes > 2 * embedded.text.nbytes


@pytest.mark.parametrize(("buckets", "most"), [(None, 65535), ((8, 16, 40), 40)])
def test_the_largest_vocabulary_is_that_of_the_engines(
    tmp_path: Path, buckets: tuple[int, ...] | None, most: int
) -> None:
    engines = FakeEngines(buckets, decodes_at_once=2, images_at_once=3)
    each = Segmenter(write_fake_bundle(tmp_path / "fake"), engines=engines)
    assert (each.max_categories, each.encodes_at_once, each.decodes_at_once) == (most, 3, 3)
