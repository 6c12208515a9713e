"""What the published protocol does to images, labels and predictions before they are counted."""

import pickle
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import interpolate

from sed_trt.benchmarks.accuracy.counts import SetCounts
from sed_trt.benchmarks.accuracy.evaluate import SETS, chosen_images
from sed_trt.benchmarks.accuracy.labelling import count_sets
from sed_trt.benchmarks.accuracy.predictors import open_source
from sed_trt.benchmarks.accuracy.protocol import DATA, limit_short_side, published_miou
from sed_trt.benchmarks.accuracy.shards import ChosenImages
from sed_trt.errors import InputError
from sed_trt.model import SED
from sed_trt.runtime import KeepAll, Segmenter, TopK
from sed_trt.tests.fakes import dataset_layouts as layouts
from sed_trt.tests.fakes.given_set import GivenSet, Label, no_report, stand_in_setup
from sed_trt.train.datasets import IGNORED, NAMES, Dataset, Sample, Scenes, open_dataset
from sed_trt.train.scenes import VOCABULARY, make_scene


def counted(folder: Path, dataset: Dataset, *labels: Label) -> SetCounts:
    """The whole set labelled by functions, one for each source."""
    setup = stand_in_setup(folder, *labels)
    chosen = ChosenImages(dataset, range(len(dataset)))
    (counts,) = count_sets(setup, setup.open(ExitStack()), [chosen], no_report)
    return counts


def test_voc20b_scores_other_names_as_background(tmp_path: Path) -> None:
    raw = np.array([[0, 0, 1], [20, 255, 0]], np.uint8)
    layouts.write_voc(tmp_path, {"2007_000001": raw})
    dataset = open_dataset("voc20b", root=tmp_path)
    # Names 20 and 58 are no class of VOC; the pixel of 255 is not scored.
    given = np.array([[20, 58, 0], [19, 3, 5]], np.uint16)
    (totals,) = counted(tmp_path, dataset, lambda image: given).totals[0]
    confusion = totals.confusion
    assert confusion.counts.shape == (21, 21)
    assert confusion.counts.sum() == 5
    assert confusion.counts[20, 20] == 2 and confusion.counts[20, 5] == 1
    assert confusion.counts[0, 0] == confusion.counts[19, 19] == 1
    assert confusion.iou()[20] == pytest.approx(2 / 3)
    assert confusion.miou() == pytest.approx(100 * (1 + 1 + 2 / 3) / 3)


def test_ignored_labels_and_many_categories(tmp_path: Path) -> None:
    labels = np.array([[IGNORED, 846, 300]], np.int32)
    given = np.array([[0, 846, 44]], np.uint16)
    counts = counted(tmp_path, GivenSet([labels], 847), lambda image: given)
    (totals,) = counts.totals[0]
    assert totals.confusion.counts.sum() == 2
    assert totals.confusion.counts[846, 846] == totals.confusion.counts[300, 44] == 1
    assert totals.mean_kept() == (847, 3, 1)


def test_two_sources_are_compared_pixel_by_pixel(tmp_path: Path) -> None:
    labels = [np.zeros((2, 5), np.int32)] * 2
    counts = counted(
        tmp_path,
        GivenSet(labels, 3),
        lambda image: image[..., 0].astype(np.uint16),
        lambda image: np.zeros((2, 5), np.uint16),
    )
    ours, theirs = counts.totals[0]
    assert (ours.confusion.pixel_accuracy(), theirs.confusion.pixel_accuracy()) == (50, 100)
    assert counts.agreement(0) == 50


@pytest.mark.parametrize("size", [(600, 901), (901, 600), (700, 700), (1025, 2048)])
def test_the_short_side_is_limited_as_published(size: tuple[int, int]) -> None:
    height, width = size
    source = np.random.default_rng(0)
    sample = Sample(
        source.integers(0, 256, (*size, 3), dtype=np.uint8), source.integers(0, 847, size, dtype=np.int32)
    )
    done = limit_short_side(sample, 512)
    scale = 512 / min(size)
    expected = (round(height * scale), round(width * scale))
    assert done.labels.shape == done.image.shape[:2] == expected
    rows = np.floor(np.arange(expected[0]) * (height / expected[0]) + 1e-9).astype(int)
    columns = np.floor(np.arange(expected[1]) * (width / expected[1]) + 1e-9).astype(int)
    assert np.array_equal(done.labels, sample.labels[np.ix_(rows, columns)])
    values = torch.from_numpy(sample.image).permute(2, 0, 1)[None].float()
    bilinear = interpolate(values, expected, mode="bilinear", align_corners=False)[0].permute(1, 2, 0)
    assert np.abs(done.image - bilinear.numpy()).max() < 0.55


def test_images_within_the_limit_stay() -> None:
    sample = Sample(np.zeros((512, 900, 3), np.uint8), np.zeros((512, 900), np.int32))
    assert limit_short_side(sample, 512) is sample
    assert limit_short_side(sample, None) is sample


def test_the_limit_holds_before_the_labels_are_compared(tmp_path: Path) -> None:
    dataset = GivenSet([np.zeros((8, 16), np.int32)], 2, max_short_side=4)
    counts = counted(tmp_path, dataset, lambda image: np.zeros(image.shape[:2], np.uint16))
    assert counts.totals[0][0].confusion.counts.sum() == 4 * 8


def test_checkpoint_and_bundle_resize_first(tiny_checkpoint: Path, tiny_bundle: Path) -> None:
    image = make_scene(3, 256, split="test").image[:150, :211]
    labels: dict[tuple[int | None, Path, type], np.ndarray] = {}
    for short_side in (None, 64):
        for path in (tiny_checkpoint, tiny_bundle):
            with open_source(path, "onnxruntime", short_side=short_side) as source:
                names = VOCABULARY[:40]
                predict = source.predictor(names, source.embed(names, None), (TopK(8), KeepAll()))
                for kind, prediction in zip((TopK, KeepAll), predict(image), strict=True):
                    labels[short_side, path, kind] = prediction.labels
    for short_side in (None, 64):
        for kind in (TopK, KeepAll):
            torchs, onnxs = (labels[short_side, path, kind] for path in (tiny_checkpoint, tiny_bundle))
            assert torchs.shape == onnxs.shape == image.shape[:2]
            assert np.mean(torchs == onnxs) > 0.999
    assert np.mean(labels[None, tiny_checkpoint, TopK] == labels[64, tiny_checkpoint, TopK]) < 0.99


def test_an_image_is_encoded_once_for_all_policies(
    tiny_checkpoint: Path, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encodings = []

    def counted_calls(original: Callable[..., object]) -> Callable[..., object]:
        def call(self: object, *given: object) -> object:
            encodings.append(type(self))
            return original(self, *given)

        return call

    monkeypatch.setattr(Segmenter, "encode", counted_calls(Segmenter.encode))
    monkeypatch.setattr(SED, "encode_images", counted_calls(SED.encode_images))
    for path in (tiny_checkpoint, tiny_bundle):
        with open_source(path, "onnxruntime") as source:
            predict = source.predictor(["sky"], source.embed(["sky"], None), (TopK(8), KeepAll(), TopK(1)))
            assert len(predict(np.zeros((32, 32, 3), np.uint8))) == 3
    assert encodings == [SED, Segmenter]


def test_a_part_is_spread_over_the_set() -> None:
    scenes = Scenes(length=10)
    assert chosen_images(scenes, 4).indices == [0, 2, 5, 7]
    for limit in (None, 10, 11):
        assert list(chosen_images(scenes, limit).indices) == list(range(10))


def test_published_sets_reach_other_processes(tmp_path: Path) -> None:
    layouts.write_pc59(tmp_path, {"2008_000002": np.array([[2, 2], [2, 23]])})
    layouts.write_ade847(tmp_path, {"ADE_val_1": np.array([[2978, 2978, 312]])})
    for name in ("pc59", "ade847"):
        dataset = open_dataset(name, root=tmp_path)
        copy = pickle.loads(pickle.dumps(dataset))
        assert np.array_equal(copy[0].labels, dataset[0].labels)
        assert copy.identity(0) == dataset.identity(0)


def test_published_figures() -> None:
    assert published_miou("sed-b", "none", "ade150") == 31.8
    assert published_miou("sed-l", "topk:8", "pc459") == 22.6
    assert published_miou("sed-b", "topk:4", "ade150") is None
    assert published_miou("sed-tiny", "none", "ade150") is None
    assert published_miou("sed-b", "none", "voc20b") is None
    assert set(SETS) == set(NAMES) - {"scenes"} and SETS[: len(DATA)] == DATA


def test_what_cannot_be_labelled_is_named(tmp_path: Path) -> None:
    def refuse(image: np.ndarray) -> np.ndarray:
        raise InputError("GPU: out of memory")

    with pytest.raises(InputError, match=r"^image 0: GPU: out of memory$"):
        counted(tmp_path, GivenSet([np.zeros((2, 2), np.int32)], 2), refuse)


@pytest.mark.parametrize("policy", [TopK(8), KeepAll()])
def test_want_of_memory_in_pytorch_is_bad_input(policy: TopK | KeepAll, tiny_checkpoint: Path) -> None:
    with open_source(tiny_checkpoint) as source:
        text = source.embed(["sky"], None)
        # More than any address space holds, of which there is only one category.
        many = np.broadcast_to(text, (2**40, *text.shape[1:]))
        predict = source.predictor(["sky"], many, [policy])
        with pytest.raises(InputError, match=r"^PyTorch: out of memory at 1 categories; take fewer"):
            predict(np.zeros((32, 32, 3), np.uint8))
