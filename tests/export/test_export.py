"""The exported graphs and the bundle around them."""

import os
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from sed_trt.bundle import STAGES, Bundle
from sed_trt.errors import InputError
from sed_trt.export import VerificationError, export_bundle, verification
from sed_trt.export.export import put_in_place
from sed_trt.model import SED
from sed_trt.runtime import KeepAll, Segmenter, TopK, Vocabulary
from sed_trt.tests.fakes.golden import golden, random_text

# TensorRT cannot parse the first four; the others are control flow, or slow integer arithmetic on indices.
FORBIDDEN = {"NonZero", "Compress", "ScatterElements", "ScatterND", "If", "Loop", "Scan", "Floor", "Mod"}


def graph(bundle: Path, stage: str) -> onnx.ModelProto:
    """One graph of a bundle."""
    return onnx.load(bundle / f"{stage}.onnx")


@pytest.mark.parametrize("stage", STAGES)
def test_graph_uses_only_what_every_backend_builds(tiny_bundle: Path, stage: str) -> None:
    model = graph(tiny_bundle, stage)
    assert not {node.op_type for node in model.graph.node} & FORBIDDEN
    assert {opset.domain: opset.version for opset in model.opset_import}[""] >= 20
    assert not model.functions


@pytest.mark.parametrize("stage", ["text", "image", "decode1", "decode2", "decode3"])
def test_layer_norms_stay_whole(tiny_bundle: Path, stage: str) -> None:
    operators = [node.op_type for node in graph(tiny_bundle, stage).graph.node]
    assert "LayerNormalization" in operators
    assert "ReduceMean" not in operators and "Pow" not in operators


def test_pixels_casts_first(tiny_bundle: Path) -> None:
    model = graph(tiny_bundle, "pixels").graph
    takers = [node.op_type for node in model.node if model.input[0].name in node.input]
    assert takers == ["Cast"]


@pytest.mark.parametrize("stage", STAGES)
def test_graph_says_what_it_is(tiny_bundle: Path, stage: str) -> None:
    model = graph(tiny_bundle, stage)
    properties = {entry.key: entry.value for entry in model.metadata_props}
    assert properties["stage"] == stage
    assert properties["preset"] == "sed-tiny"
    assert properties["precision"] == "fp32"
    # The exporter notes source lines of the machine it ran on.
    assert b"site-packages" not in model.SerializeToString()


def test_manifest_describes_the_graphs(tiny_bundle: Path, tiny_checkpoint: Path) -> None:
    bundle = Bundle.open(tiny_bundle)
    for name, stage in bundle.manifest.stages.items():
        model = graph(tiny_bundle, name).graph
        assert [tensor.name for tensor in stage.inputs] == [value.name for value in model.input]
        assert [tensor.name for tensor in stage.outputs] == [value.name for value in model.output]
    axes = {tensor.name: tensor.shape for tensor in bundle.manifest.stages["decode2"].inputs}
    assert axes["kept1"] == ("K2",) and axes["x1"][0] == "K1"
    assert {tensor.dtype for tensor in bundle.manifest.stages["scout"].outputs} == {"float32", "int32"}
    assert bundle.manifest.checkpoint["file"] == tiny_checkpoint.name
    assert len(bundle.manifest.checkpoint["sha256"]) == 64
    assert {"torch", "onnx", "onnxruntime", "open_clip_torch", "timm"} <= set(bundle.manifest.libraries)
    for file in bundle.manifest.files:
        bundle.verified(file)
    assert {path.name for path in tiny_bundle.iterdir()} == {*bundle.manifest.files, "manifest.json"}


def test_a_stage_over_its_limit_leaves_no_bundle(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verification, "RELATIVE_LIMITS", {"fp32": 1e-12})
    with pytest.raises(VerificationError, match=r"image/embed by .* \(limit "):
        export_bundle(tiny_checkpoint, tmp_path / "bundle")
    assert list(tmp_path.iterdir()) == []


def test_folder_with_something_else_is_left_alone(tiny_checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(InputError, match="is not empty and holds no bundle"):
        export_bundle(tiny_checkpoint, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_file_in_place_of_the_folder(tiny_checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "bundle").write_text("")
    with pytest.raises(InputError, match="is a file"):
        export_bundle(tiny_checkpoint, tmp_path / "bundle")


def test_current_folder_is_not_replaced(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for output in (".", "..", "/"):
        with pytest.raises(InputError, match="is the current folder or holds it"):
            export_bundle(tiny_checkpoint, output)


def test_paths_that_lead_nowhere(tiny_checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "file").touch()
    for output in ("loop", "file/bundle", "x" * 300):
        with pytest.raises(InputError, match="cannot be written"):
            export_bundle(tiny_checkpoint, tmp_path / output)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "loop"]


def test_bundle_behind_a_link_is_replaced_and_obeys_the_umask(tiny_checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    before = os.umask(0o027)
    try:
        export_bundle(tiny_checkpoint, tmp_path / "link")
    finally:
        os.umask(before)
    assert (tmp_path / "link").is_symlink()
    bundle = tmp_path / "real"
    assert bundle.stat().st_mode & 0o777 == 0o750
    assert {path.stat().st_mode & 0o777 for path in bundle.iterdir()} == {0o640}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "real"]


def test_old_bundle_comes_back_when_the_new_one_cannot_take_its_place(tmp_path: Path) -> None:
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "old").touch()
    with pytest.raises(OSError, match="No such file"):
        put_in_place(tmp_path / "absent", tmp_path / "bundle")
    assert (tmp_path / "bundle" / "old").exists()


def test_runtime_agrees_with_pytorch(tiny_model: SED, tiny_bundle: Path) -> None:
    from sed_trt.train.scenes import VOCABULARY, make_scene

    segmenter = Segmenter(tiny_bundle)
    text = tiny_model.encode_vocabulary(VOCABULARY)
    vocabulary = segmenter.vocabulary(VOCABULARY)
    assert np.abs(vocabulary.text - text.numpy()).max() < 1e-5
    for seed in range(3):
        image = make_scene(seed, 200, split="test").image
        for k in (1, 8):
            ours = tiny_model.segment(torch.from_numpy(image), text, k).numpy()
            result = segmenter(image, vocabulary, TopK(k), short_side=None)
            assert (result.labels == ours).mean() > 0.999
        whole = segmenter(image, vocabulary, KeepAll(), short_side=None)
        assert whole.kept == (181, 181, 181)
        assert (
            whole.labels == tiny_model.segment(torch.from_numpy(image), text, None).numpy()
        ).mean() > 0.999


@pytest.mark.parametrize("categories", [1, 2, 7, 8, 9, 1000, 4096])
def test_any_vocabulary_size(tiny_bundle: Path, categories: int, generator: torch.Generator) -> None:
    segmenter = Segmenter(tiny_bundle)
    manifest = segmenter.bundle.manifest
    text = torch.randn(categories, len(manifest.templates), manifest.embed_dim, generator=generator)
    text = torch.nn.functional.normalize(text, dim=-1)
    vocabulary = Vocabulary(tuple(f"name {index}" for index in range(categories)), text.numpy())
    image = np.zeros((40, 60, 3), dtype=np.uint8)
    result = segmenter(image, vocabulary, TopK(8), short_side=None)
    assert result.labels.shape == (40, 60)
    assert result.labels.max() < categories
    assert 1 <= result.kept[2] <= result.kept[1] <= result.kept[0] <= categories


def test_bundle_of_sed_b_gives_the_golden_labels(base_bundle: Path) -> None:
    arrays = golden("random")
    seed, categories, width = (int(value) for value in arrays["text_seed"])
    names = tuple(f"name {index}" for index in range(categories))
    vocabulary = Vocabulary(names, random_text(seed, categories, width))
    segmenter = Segmenter(base_bundle)
    whole = segmenter(arrays["image"], vocabulary, KeepAll(), short_side=None)
    assert (whole.labels == arrays["labels_full"]).mean() >= 0.997
    fast = segmenter(arrays["image"], vocabulary, TopK(1), short_side=None)
    assert (fast.labels == arrays["labels_fast"]).mean() >= 0.997
    assert fast.kept == tuple(int(arrays[f"kept{point}"].sum()) for point in range(3))
