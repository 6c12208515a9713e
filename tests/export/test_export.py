"""The exported graphs and the bundle around them."""

import errno
import os
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from sed_trt.bundle import Bundle
from sed_trt.errors import InputError
from sed_trt.export import export_bundle
from sed_trt.export.export import put_in_place
from sed_trt.export.stages import GraphSpec, fixed_sizes
from sed_trt.model import SED
from sed_trt.model.labels import label_map
from sed_trt.runtime import KeepAll, Segmenter, TopK, Vocabulary
from sed_trt.stages import AXES, BY_NAME, COMPUTE, LABEL_GPU, STAGE_NAMES
from sed_trt.tests.fakes.golden import golden, random_text

# TensorRT cannot parse the first four; the others are control flow, or slow integer arithmetic on indices.
FORBIDDEN = {"NonZero", "Compress", "ScatterElements", "ScatterND", "If", "Loop", "Scan", "Floor", "Mod"}


def graph(bundle: Path, stage: str) -> onnx.ModelProto:
    """One graph of a bundle."""
    return onnx.load(bundle / f"{stage}.onnx")


@pytest.mark.parametrize("stage", [*STAGE_NAMES, LABEL_GPU.name])
def test_graph_uses_only_what_every_backend_builds(tiny_bundle: Path, stage: str) -> None:
    model = graph(tiny_bundle, stage)
    assert not {node.op_type for node in model.graph.node} & FORBIDDEN
    assert {opset.domain: opset.version for opset in model.opset_import}[""] >= 20
    assert not model.functions


@pytest.mark.parametrize("stage", ["text", "decode1", "decode2", "decode3"])
def test_layer_norms_of_tokens_stay_whole(tiny_bundle: Path, stage: str) -> None:
    operators = [node.op_type for node in graph(tiny_bundle, stage).graph.node]
    assert "LayerNormalization" in operators


def test_channels_of_the_image_tower_stay_in_their_axis(tiny_bundle: Path) -> None:
    nodes = graph(tiny_bundle, "image").graph.node
    operators = [node.op_type for node in nodes]
    assert "LayerNormalization" not in operators and "Pow" not in operators
    # The head of CLIP alone is a linear layer over the last axis.
    assert operators.count("Transpose") <= 2
    assert operators.count("MatMul") + operators.count("Gemm") == 1


def test_pixels_casts_first(tiny_bundle: Path) -> None:
    model = graph(tiny_bundle, "pixels").graph
    takers = [node.op_type for node in model.node if model.input[0].name in node.input]
    assert takers == ["Cast"]


@pytest.mark.parametrize("stage", [*STAGE_NAMES, LABEL_GPU.name])
@pytest.mark.parametrize(("precision", "compute"), [("fp32", "float32"), ("fp16", "float16")])
def test_graphs_are_those_of_the_table(
    precision: str, compute: str, stage: str, tiny_model: SED, request: pytest.FixtureRequest
) -> None:
    """Names, dtypes, ranks, dynamic axes and fixed sizes, in the graph and in the manifest."""
    folder = request.getfixturevalue("tiny_bundle" if precision == "fp32" else "tiny_bundle_fp16")
    model, described = graph(folder, stage).graph, Bundle.open(folder).manifest.stages[stage]
    sizes = fixed_sizes(tiny_model)
    definition = BY_NAME[stage]
    for tensors, values, specs in (
        (definition.inputs, model.input, described.inputs),
        (definition.outputs, model.output, described.outputs),
    ):
        expected = [
            (
                tensor.name,
                compute if tensor.dtype == COMPUTE else tensor.dtype,
                tuple(
                    size if size in AXES or isinstance(size, int) else sizes[size] for size in tensor.shape
                ),
            )
            for tensor in tensors
        ]
        assert [(spec.name, spec.dtype, spec.shape) for spec in specs] == expected
        assert [
            (
                value.name,
                onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type).name,
                tuple(dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim),
            )
            for value in values
        ] == expected


@pytest.mark.parametrize("stage", STAGE_NAMES)
def test_graph_says_what_it_is(tiny_bundle: Path, stage: str) -> None:
    model = graph(tiny_bundle, stage)
    properties = {entry.key: entry.value for entry in model.metadata_props}
    assert properties["stage"] == stage
    assert properties["preset"] == "sed-tiny"
    assert properties["precision"] == "fp32"
    # The exporter notes source lines of the machine it ran on.
    assert b"site-packages" not in model.SerializeToString()


def test_manifest_names_its_sources_and_all_files(tiny_bundle: Path, tiny_checkpoint: Path) -> None:
    bundle = Bundle.open(tiny_bundle)
    axes = {tensor.name: tensor.shape for tensor in bundle.manifest.stages["gather2"].inputs}
    assert axes["kept1"] == ("K2",) and axes["x1"][0] == "K1"
    assert {tensor.dtype for tensor in bundle.manifest.stages["scout"].outputs} == {"float32", "int32"}
    assert bundle.manifest.checkpoint["file"] == tiny_checkpoint.name
    assert len(bundle.manifest.checkpoint["sha256"]) == 64
    assert {"torch", "onnx", "onnxruntime", "open_clip_torch", "timm"} <= set(bundle.manifest.libraries)
    for file in bundle.manifest.files:
        bundle.verified(file)
    assert {path.name for path in tiny_bundle.iterdir()} == {*bundle.manifest.files, "manifest.json"}


def test_folder_with_something_else_is_left_alone(tiny_checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(InputError, match="is not empty and contains no bundle"):
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
        with pytest.raises(InputError, match="is the current folder or contains it"):
            export_bundle(tiny_checkpoint, output)


def test_paths_that_lead_nowhere(tiny_checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "file").touch()
    for output in ("loop", "file/bundle", "x" * 300):
        with pytest.raises(InputError, match="cannot be written"):
            export_bundle(tiny_checkpoint, tmp_path / output)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "loop"]


def test_a_full_disk_leaves_nothing(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(spec: GraphSpec, path: Path, *_options: object) -> None:
        path.write_bytes(b"half a graph")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("sed_trt.export.export.write_graph", fail)
    with pytest.raises(InputError, match=r"bundle: cannot be written \(No space left on device\)"):
        export_bundle(tiny_checkpoint, tmp_path / "bundle")
    assert list(tmp_path.iterdir()) == []


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
        with torch.no_grad():
            encoded = tiny_model.encode_images(torch.from_numpy(image).unsqueeze(0))
        for policy in (TopK(1), TopK(8), KeepAll()):
            k = policy.k if isinstance(policy, TopK) else None
            ours = tiny_model.decode_rejecting(*encoded, text, k)
            result = segmenter(image, vocabulary, policy, short_side=None)
            assert (result.labels == label_map(ours.logits, ours.kept, 200, 200).numpy()).mean() > 0.999
            assert isinstance(policy, TopK) or result.kept == (181, 181, 181)


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
    image = segmenter.encode(arrays["image"], short_side=None)
    whole = segmenter(image, vocabulary, KeepAll())
    assert (whole.labels == arrays["labels_full"]).mean() >= 0.997
    fast = segmenter(image, vocabulary, TopK(1))
    assert (fast.labels == arrays["labels_fast"]).mean() >= 0.997
    assert fast.kept == tuple(int(arrays[f"kept{point}"].sum()) for point in range(3))
