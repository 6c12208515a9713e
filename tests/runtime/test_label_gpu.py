"""Labels by gathering, for GPUs: as by matrix products, in bounded memory, with one copy to the host."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from sed_trt.bundle import Bundle
from sed_trt.engines.ort.cpu import OnnxRuntimeEngines
from sed_trt.engines.profiles import Limits, category_buckets, stage_profiles, tile_rows
from sed_trt.host import MAX_TILE_VALUES, source_coordinates
from sed_trt.model.labels import LOWEST, label_band, label_tile
from sed_trt.runtime import KeepAll, Segmenter, pipeline
from sed_trt.runtime.pipeline import label_map
from sed_trt.tests.fakes.bundle import write_fake_bundle
from sed_trt.tests.fakes.engines import COLOURS, FakeEngines, quarters

# Side of sed-tiny's logits.
GRID = 64
MIB = 2**20


class GatheringEngines(OnnxRuntimeEngines):
    """The CPU, which labels with the stage for GPUs."""

    label_stage = "label_gpu"


@pytest.fixture(scope="module")
def products(tiny_bundle: Path) -> OnnxRuntimeEngines:
    """Engines that label by two matrix products."""
    return OnnxRuntimeEngines(Bundle.open(tiny_bundle), None, "asked for")


@pytest.fixture(scope="module")
def gathering(tiny_bundle: Path) -> GatheringEngines:
    """Engines that label by gathering."""
    return GatheringEngines(Bundle.open(tiny_bundle), None, "asked for")


def random_logits(categories: int, padding: int = 0) -> np.ndarray:
    """Logits of kept categories and then of padding, float32 (categories + padding, GRID, GRID)."""
    random = np.random.default_rng(categories)
    logits = 4 * random.standard_normal((categories + padding, GRID, GRID), dtype=np.float32)
    logits[categories:] = LOWEST
    return logits


def random_ids(categories: int) -> np.ndarray:
    """Rising indices of kept categories, of which some need their second byte."""
    return np.sort(np.random.default_rng(0).choice(2**16, categories, replace=False))


@pytest.mark.parametrize(
    ("height", "width", "categories", "padding"),
    [
        (1, 1, 5, 3),
        (1, 300, 4, 0),
        (299, 1, 4, 4),
        (7, 5, 1, 0),
        (7, 5, 1, 7),
        (33, 47, 847, 177),
        (64, 64, 32, 0),
        (479, 641, 12, 4),
        (1031, 2057, 3, 0),
    ],
)
def test_gathering_gives_what_matrix_products_give(
    height: int,
    width: int,
    categories: int,
    padding: int,
    products: OnnxRuntimeEngines,
    gathering: GatheringEngines,
) -> None:
    logits, kept = random_logits(categories, padding), random_ids(categories)
    expected, expected_scores = label_map(products, logits, kept, height, width)
    labels, scores = label_map(gathering, logits, kept, height, width)
    assert (labels.dtype, labels.shape) == (np.uint16, (height, width))
    assert scores is not None and expected_scores is not None
    assert np.abs(scores - expected_scores).max() < 1e-6
    # Two categories may be as close as rounding.
    assert np.mean(labels == expected) > 0.9999
    assert set(np.unique(labels)) <= set(kept.tolist())


def test_tiles_give_what_one_piece_gives(
    gathering: GatheringEngines, monkeypatch: pytest.MonkeyPatch
) -> None:
    logits, kept = random_logits(3), random_ids(3)
    whole, whole_scores = label_map(gathering, logits, kept, 130, 90)
    monkeypatch.setattr(pipeline, "TILE_SIDE", 37)
    monkeypatch.setattr(pipeline, "MAX_TILE_VALUES", 3 * 37 * 11)
    labels, scores = label_map(gathering, logits, kept, 130, 90)
    assert np.array_equal(labels, whole)
    assert scores is not None and whole_scores is not None and np.array_equal(scores, whole_scores)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (50, 7), (31, 90), (16, 16)])
def test_in_pytorch_as_well(height: int, width: int, generator: torch.Generator) -> None:
    logits = torch.randn(5, 16, 16, generator=generator)
    kept = torch.tensor([2, 255, 256, 700, 65_535])
    rows, columns = (torch.from_numpy(source_coordinates(16, size)) for size in (height, width))
    expected, expected_scores = label_band(logits, kept, rows, columns)
    label_bytes, scores = label_tile(logits, kept, rows, columns)
    assert label_bytes.dtype == torch.uint8
    low, high = label_bytes.to(torch.int64).unbind(-1)
    assert (low + 256 * high == expected).float().mean() > 0.999
    assert (scores - expected_scores).abs().max() < 1e-6


def largest_tile(categories: int, height: int, width: int) -> int:
    """Bytes of one map of all categories, up-sampled, in the largest tile of an image."""
    seen: list[int] = []

    class Engines(FakeEngines):
        def __getitem__(self, stage: str) -> Any:
            return self

        def run(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
            shape = len(inputs["rows"]), len(inputs["columns"])
            seen.append(4 * categories * shape[0] * shape[1])
            return {"label_bytes": np.zeros((*shape, 2), np.uint8)}

    logits = np.zeros((categories, 1, 1), np.float32)
    kept = np.arange(categories)
    engines: Any = Engines(label_stage="label_gpu")
    label_map(engines, logits, kept, height, width, with_scores=False)
    return max(seen)


@pytest.mark.parametrize("categories", category_buckets(1024))
@pytest.mark.parametrize(("height", "width"), [(480, 640), (3000, 4000), (4000, 3000), (100, 20_000)])
def test_a_tile_takes_no_more_memory_than_it_may(categories: int, height: int, width: int) -> None:
    assert largest_tile(categories, height, width) <= 4 * MAX_TILE_VALUES == 256 * MIB


@pytest.mark.parametrize("categories", [32, 64, 128, 512, 1024])
def test_a_tile_of_a_large_image_fills_its_memory(categories: int) -> None:
    assert largest_tile(categories, 3000, 4000) > 0.9 * 256 * MIB


@pytest.mark.parametrize("categories", [8, 16, 32, 64])
def test_an_image_of_the_usual_size_is_one_tile(categories: int) -> None:
    assert largest_tile(categories, 640, 853) == 4 * categories * 640 * 853


def test_no_intermediate_value_is_larger_than_the_maps(tiny_bundle: Path) -> None:
    """Of the graph at the largest shapes of each profile, from the shapes that ONNX infers."""
    bundle = Bundle.open(tiny_bundle)
    for profile in stage_profiles(bundle.manifest, Limits())["label_gpu"]:
        (categories,), (rows,), (columns,) = (profile[name][2] for name in ("kept", "rows", "columns"))
        assert rows == tile_rows(categories)
        sizes = {"K3": categories, "RT": rows, "QT": columns}
        model = onnx.load(bundle.path / "label_gpu.onnx")
        del model.graph.value_info[:]
        for value in model.graph.input:
            for dim in value.type.tensor_type.shape.dim:
                dim.dim_value = sizes.get(dim.dim_param, dim.dim_value)
        inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph
        shapes = [
            [dim.dim_value for dim in value.type.tensor_type.shape.dim] for value in inferred.value_info
        ]
        assert len(shapes) > 30 and all(all(shape) for shape in shapes)
        largest = max(np.prod(shape, dtype=np.int64) for shape in shapes)
        assert largest == categories * rows * columns <= 2**27


@pytest.fixture
def engines() -> FakeEngines:
    """Stages in numpy, of which the one for GPUs labels."""
    return FakeEngines(label_stage="label_gpu")


def test_scores_that_are_not_asked_for_stay_where_they_are(engines: FakeEngines, tmp_path: Path) -> None:
    segmenter = Segmenter(write_fake_bundle(tmp_path / "fake"), engines=engines)
    asked = segmenter(quarters(), list(COLOURS), KeepAll(), short_side=None)
    assert asked.scores is not None and engines.downloaded == [40 * 60 * (2 + 4)]
    engines.downloaded.clear()
    unasked = segmenter(quarters(), list(COLOURS), KeepAll(), short_side=None, scores=False)
    assert unasked.scores is None and engines.downloaded == [40 * 60 * 2]
    assert np.array_equal(unasked.labels, asked.labels)
    engines.downloaded.clear()
    (item,) = segmenter.stream([quarters()], list(COLOURS), short_side=None, scores=False)
    assert item.result is not None and item.result.scores is None
    assert engines.downloaded == [40 * 60 * 2]


@pytest.mark.parametrize("images_at_once", [1, 2])
def test_a_cpu_fills_no_scores_either(images_at_once: int, tmp_path: Path) -> None:
    engines = FakeEngines(images_at_once=images_at_once)
    segmenter = Segmenter(write_fake_bundle(tmp_path / "fake"), engines=engines)
    items = segmenter.stream([quarters()] * 2, list(COLOURS), short_side=None, scores=False)
    results = [item.result for item in items]
    assert all(result is not None and result.scores is None for result in results)
    (item,) = segmenter.stream([quarters()], list(COLOURS), short_side=None)
    assert item.result is not None and item.result.scores is not None
