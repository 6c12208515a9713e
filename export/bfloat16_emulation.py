"""bfloat16 graphs for ONNX Runtime on the CPU, which lacks kernels for them: FP32, rounded at every operator.

That is what ONNX Runtime itself does with FP16 graphs on the CPU.
"""

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from ..engines.bundle import Bundle, Stage, Tensor, file_record, write_manifest


@contextlib.contextmanager
def runnable(bundle: Bundle) -> Iterator[Bundle]:
    """The bundle itself, or, for one of bfloat16, an emulation that is there while the block runs."""
    if bundle.manifest.precision != "bf16":
        yield bundle
        return
    with tempfile.TemporaryDirectory(prefix="sed-trt-") as folder:
        yield emulated_bundle(bundle, Path(folder))


def emulated_bundle(bundle: Bundle, folder: Path) -> Bundle:
    """Write a bundle of FP32 graphs that round as those of `bundle` do to the empty `folder`, and open it."""
    for name in bundle.manifest.files:
        if not name.endswith(".onnx"):
            shutil.copyfile(bundle.path / name, folder / name)
    stages = {}
    for name, stage in bundle.manifest.stages.items():
        model = onnx.load(bundle.verified(stage.file))
        emulate(model)
        onnx.save(model, folder / stage.file)
        stages[name] = Stage(stage.file, widened(stage.inputs), widened(stage.outputs))
    files = {name: file_record(folder / name) for name in bundle.manifest.files}
    write_manifest(folder, replace(bundle.manifest, precision="fp32", stages=stages, files=files))
    return Bundle.open(folder)


def widened(tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """The manifest's description with float32 for bfloat16."""
    return tuple(
        replace(tensor, dtype="float32") if tensor.dtype == "bfloat16" else tensor for tensor in tensors
    )


def emulate(model: onnx.ModelProto) -> None:
    """Rewrite a graph: what is bfloat16 becomes FP32 and is rounded to bfloat16 where it is made."""
    graph = model.graph
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    rounded = {
        value.name
        for value in (*inferred.value_info, *inferred.input, *inferred.output)
        if value.type.tensor_type.elem_type == TensorProto.BFLOAT16
    }
    for value in (*graph.input, *graph.output):
        if value.name in rounded:
            value.type.tensor_type.elem_type = TensorProto.FLOAT
    for tensor in graph.initializer:
        if tensor.data_type == TensorProto.BFLOAT16:
            tensor.CopyFrom(as_float(tensor))
    nodes = []
    for value in graph.input:
        if value.name in rounded:
            for node in graph.node:
                node.input[:] = [f"{name}.rounded" if name == value.name else name for name in node.input]
            nodes += rounding(value.name, f"{value.name}.bfloat16", f"{value.name}.rounded")
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.TENSOR and attribute.t.data_type == TensorProto.BFLOAT16:
                attribute.t.CopyFrom(as_float(attribute.t))
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i == TensorProto.BFLOAT16:
                attribute.i = TensorProto.FLOAT
        names = list(node.output)
        node.output[:] = [f"{name}.exact" if name in rounded else name for name in names]
        nodes.append(node)
        for name in names:
            if name in rounded:
                nodes += rounding(f"{name}.exact", f"{name}.bfloat16", name)
    del graph.node[:]
    graph.node.extend(nodes)


def rounding(source: str, between: str, result: str) -> list[onnx.NodeProto]:
    """Two nodes that round the FP32 value `source` to the nearest bfloat16 and give it as FP32 `result`."""
    return [
        helper.make_node("Cast", [source], [between], to=TensorProto.BFLOAT16),
        helper.make_node("Cast", [between], [result], to=TensorProto.FLOAT),
    ]


def as_float(tensor: onnx.TensorProto) -> onnx.TensorProto:
    """A bfloat16 tensor as FP32, which holds its values exactly."""
    return numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), tensor.name)
