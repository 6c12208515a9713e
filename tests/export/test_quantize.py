"""8-bit bundles: what is quantised and what is not, and that labels stay."""

import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto

from sed_trt.benchmarks.accuracy.predictors import open_source
from sed_trt.bundle import Bundle, file_record, write_manifest
from sed_trt.engines.backends import open_engines
from sed_trt.errors import InputError
from sed_trt.export import VerificationError, export_bundle
from sed_trt.export.onnx_graph import write_graph
from sed_trt.export.precision import OPSETS
from sed_trt.export.quantization import (
    LayerError,
    calibration_pixels,
    pointwise_layers,
    pointwise_nodes,
    quantize_graph,
)
from sed_trt.export.stages import GraphSpec, graph_specs
from sed_trt.export.verification import ERROR_NOT_FINITE, MEAN_SQUARE_LIMITS, compare, emulate_half, photo
from sed_trt.model import SED
from sed_trt.runtime import Segmenter, TopK
from sed_trt.stages import STAGES
from sed_trt.tests.fakes.exports import reuse_graphs
from sed_trt.tests.fakes.results import scores_of
from sed_trt.train.scenes import VOCABULARY, make_scene


def kinds(bundle: Path, stage: str) -> Counter[str]:
    return Counter(node.op_type for node in onnx.load(bundle / f"{stage}.onnx").graph.node)


def test_pointwise_convolutions_are_8_bit_and_nothing_else(tiny_bundle: Path, tiny_bundle_int8: Path) -> None:
    exact, quantized = (onnx.load(bundle / "image.onnx") for bundle in (tiny_bundle, tiny_bundle_int8))
    chosen = set(pointwise_nodes(exact))
    assert len(chosen) == 20
    producers = {name: node for node in quantized.graph.node for name in node.output}
    for node in quantized.graph.node:
        if node.op_type == "Conv":
            eight_bit = [
                name in producers and producers[name].op_type == "DequantizeLinear" for name in node.input[:2]
            ]
            assert eight_bit == [node.name in chosen] * 2
    before, after = kinds(tiny_bundle, "image"), kinds(tiny_bundle_int8, "image")
    assert {kind for kind in after if after[kind] != before[kind]} == {"QuantizeLinear", "DequantizeLinear"}


def test_a_layer_with_outlying_activations_is_not_quantised(tiny_model: SED, tmp_path: Path) -> None:
    spec = next(spec for spec in graph_specs(tiny_model) if spec.name == "image")
    layers = dict(pointwise_layers(spec.module))
    name = list(layers)[5]
    with torch.no_grad():
        # The values of one channel leave few steps for those of all others, on which the result depends.
        torch.Tensor(layers[list(layers)[4]].bias)[0] = 3000
        layers[name].weight[:, 0] = 0
    file = tmp_path / "image.onnx"
    write_graph(spec, file, OPSETS["fp32"], {})
    errors = quantize_graph(file, spec, calibration_pixels([photo()], tiny_model.preset.image_size), {})
    assert [error.name for error in errors if not error.quantised] == [name]
    assert sum(node.op_type == "QuantizeLinear" for node in onnx.load(file).graph.node) == len(layers) - 1


def test_manifest_and_what_goes_in_and_out(tiny_bundle: Path, tiny_bundle_int8: Path) -> None:
    exact, quantized = Bundle.open(tiny_bundle).manifest, Bundle.open(tiny_bundle_int8).manifest
    assert quantized.precision == "int8"
    assert quantized.stages == exact.stages
    same = {
        stage.name
        for stage in STAGES
        if quantized.files[f"{stage.name}.onnx"].sha256 == exact.files[f"{stage.name}.onnx"].sha256
    }
    assert same == {stage.name for stage in STAGES if stage.int8_reason is None}
    model = onnx.load(tiny_bundle_int8 / "image.onnx")
    properties = {entry.key: entry.value for entry in model.metadata_props}
    assert (properties["precision"], properties["stage"]) == ("int8", "image")
    assert {value.type.tensor_type.elem_type for value in (*model.graph.input, *model.graph.output)} == {
        TensorProto.FLOAT
    }
    with emulate_half(Bundle.open(tiny_bundle_int8)) as bundle:
        assert bundle.path == tiny_bundle_int8


def test_quantising_gives_the_same_file_every_time(
    tiny_model: SED, tiny_bundle: Path, tmp_path: Path
) -> None:
    files = [tmp_path / "one" / "image.onnx", tmp_path / "two" / "image.onnx"]
    spec = next(spec for spec in graph_specs(tiny_model) if spec.name == "image")
    pixels = calibration_pixels([photo()], tiny_model.preset.image_size)
    for file in files:
        file.parent.mkdir()
        file.write_bytes((tiny_bundle / "image.onnx").read_bytes())
        quantize_graph(file, spec, pixels, {"stage": "image"})
    assert files[0].read_bytes() == files[1].read_bytes()


def test_labels_stay(tiny_bundle: Path, tiny_bundle_int8: Path) -> None:
    agreed = []
    with (
        open_source(tiny_bundle, "onnxruntime") as exact,
        open_source(tiny_bundle_int8, "onnxruntime") as ours,
    ):
        assert (ours.precision, ours.runs_on) == ("int8", "onnxruntime")
        predictors = [
            source.predictor(VOCABULARY, source.embed(VOCABULARY, None), [TopK()]) for source in (exact, ours)
        ]
        for seed in range(4):
            image = make_scene(seed, 256, split="test").image
            labels = [predict(image)[0].labels for predict in predictors]
            agreed.append(np.mean(labels[0] == labels[1]))
    # Not every pixel: 8 bits are no exact arithmetic.
    assert 0.97 < np.mean(agreed) < 1


def test_an_image_gets_the_same_labels_alone_and_in_a_stream(tiny_bundle_int8: Path) -> None:
    segmenter = Segmenter(tiny_bundle_int8, "onnxruntime")
    images = [make_scene(seed, 256, split="test").image for seed in range(3)]
    # In a batch of others, its values must not change the scale of theirs.
    images.append(np.random.default_rng(0).integers(0, 2, (64, 64, 3), np.uint8) * 255)
    names = ["sky", "grass", "red car", "snow"]
    for image, item in zip(images, segmenter.stream(images, names, batch=4), strict=True):
        assert item.result is not None
        assert np.abs(scores_of(item.result) - scores_of(segmenter(image, names))).max() < 0.01


def test_a_wrong_scale_is_found(
    tiny_checkpoint: Path, tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reuse_graphs(monkeypatch, tiny_bundle)

    def spoiled(
        path: Path, spec: GraphSpec, pixels: list[torch.Tensor], metadata: dict[str, str]
    ) -> list[LayerError]:
        errors = quantize_graph(path, spec, pixels, metadata)
        model = onnx.load(path)
        # Those of activations are scalars, and appear on both sides of the rounding.
        scale = next(
            tensor for tensor in model.graph.initializer if tensor.name.endswith("_scale") and tensor.dims
        )
        wrong = onnx.numpy_helper.to_array(scale) * 2
        scale.CopyFrom(onnx.numpy_helper.from_array(wrong, scale.name))
        onnx.save(model, path)
        return errors

    monkeypatch.setattr("sed_trt.export.export.quantize_graph", spoiled)
    with pytest.raises(VerificationError, match="image/embed by"):
        export_bundle(tiny_checkpoint, tmp_path / "bundle", precision="int8")
    assert not (tmp_path / "bundle").exists()


def test_mean_square_of_nan_or_infinity_is_over_the_limit() -> None:
    reference = np.ones((2, 3), np.float32)
    for value in (np.nan, np.inf):
        output = reference.copy()
        output[0, 0] = value
        check = compare("image", "embed", output, reference, "int8")
        assert (check.error, check.measure) == (ERROR_NOT_FINITE, "rms")
        assert not check.passed
    check = compare("image", "embed", reference * 1.5, reference, "int8")
    assert check.error == pytest.approx(0.5)
    assert check.limit == pytest.approx(MEAN_SQUARE_LIMITS["int8"])


def test_a_bundle_scaled_by_its_batch_is_refused(tiny_bundle_int8: Path, tmp_path: Path) -> None:
    older = tmp_path / "older"
    shutil.copytree(tiny_bundle_int8, older)
    model = onnx.load(older / "image.onnx")
    model.graph.node[0].doc_string = "MatMulInteger"
    onnx.save(model, older / "image.onnx")
    manifest = Bundle.open(older).manifest
    files = {**manifest.files, "image.onnx": file_record(older / "image.onnx")}
    write_manifest(older, replace(manifest, files=files))
    for backend in ("onnxruntime", "openvino"):
        with pytest.raises(InputError, match=r"image\.onnx: its 8-bit products are those of an earlier"):
            open_engines(Bundle.open(older), backend)


def test_a_network_without_a_layer_for_8_bits_is_refused(
    tiny_model: SED, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sed_trt.export.quantization.LAYER_LIMIT", 0.0)
    spec = next(spec for spec in graph_specs(tiny_model) if spec.name == "image")
    file = tmp_path / "image.onnx"
    write_graph(spec, file, OPSETS["fp32"], {})
    before = file.read_bytes()
    with pytest.raises(InputError, match="8 bits change the products of every layer"):
        quantize_graph(file, spec, calibration_pixels([photo()], tiny_model.preset.image_size), {})
    assert file.read_bytes() == before
