"""Half-precision graphs on ONNX Runtime's CPU provider, with a rounding after every operator.

Left alone, it computes an FP16 graph largely in FP32, since it leaves out the roundings between operators
that it has no FP16 kernels for, and of bfloat16 it lacks most operators. What overflows or loses precision on
a GPU would not show.
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

HALVES = (TensorProto.FLOAT16, TensorProto.BFLOAT16)
HALF_DTYPES = ("float16", "bfloat16")
HALF_PRECISIONS = ("fp16", "bf16")


@contextlib.contextmanager
def rounding(bundle: Bundle) -> Iterator[Bundle]:
    """The emulation of a half-precision bundle, there while the block runs; any other bundle as it is."""
    if bundle.manifest.precision not in HALF_PRECISIONS:
        yield bundle
        return
    with tempfile.TemporaryDirectory(prefix="sed-trt-") as folder:
        yield rounding_bundle(bundle, Path(folder))


def rounding_bundle(bundle: Bundle, folder: Path) -> Bundle:
    """Write FP32 graphs that round as those of `bundle` ask to the empty `folder`, and open that bundle."""
    for name in bundle.manifest.files:
        if not name.endswith(".onnx"):
            shutil.copyfile(bundle.path / name, folder / name)
    stages = {}
    for name, stage in bundle.manifest.stages.items():
        model = onnx.load(bundle.verified(stage.file))
        make_rounding(model)
        onnx.save(model, folder / stage.file)
        stages[name] = Stage(stage.file, widened(stage.inputs), widened(stage.outputs))
    files = {name: file_record(folder / name) for name in bundle.manifest.files}
    write_manifest(folder, replace(bundle.manifest, precision="fp32", stages=stages, files=files))
    return Bundle.open(folder)


def widened(tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """The manifest's description with float32 for half."""
    return tuple(
        replace(tensor, dtype="float32") if tensor.dtype in HALF_DTYPES else tensor for tensor in tensors
    )


def make_rounding(model: onnx.ModelProto) -> None:
    """Rewrite a graph: what is half becomes FP32 and is rounded to half where it is made."""
    graph = model.graph
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    halves = {
        value.name: value.type.tensor_type.elem_type
        for value in (*inferred.value_info, *inferred.input, *inferred.output)
        if value.type.tensor_type.elem_type in HALVES
    }
    for value in (*graph.input, *graph.output):
        if value.name in halves:
            value.type.tensor_type.elem_type = TensorProto.FLOAT
    for tensor in graph.initializer:
        if tensor.data_type in HALVES:
            tensor.CopyFrom(as_float(tensor))
    rounded_inputs = {value.name: f"{value.name}.rounded" for value in graph.input if value.name in halves}
    nodes = [
        node
        for name, rounded in rounded_inputs.items()
        for node in rounding_nodes(name, rounded, halves[name])
    ]
    for node in graph.node:
        node.input[:] = [rounded_inputs.get(name, name) for name in node.input]
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.TENSOR and attribute.t.data_type in HALVES:
                attribute.t.CopyFrom(as_float(attribute.t))
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i in HALVES:
                attribute.i = TensorProto.FLOAT
        names = list(node.output)
        node.output[:] = [f"{name}.exact" if name in halves else name for name in names]
        nodes.append(node)
        for name in names:
            if name in halves:
                nodes += rounding_nodes(f"{name}.exact", name, halves[name])
    del graph.node[:]
    graph.node.extend(nodes)


def rounding_nodes(source: str, result: str, half: int) -> list[onnx.NodeProto]:
    """Two nodes that round the FP32 value `source` to the nearest number of `half` and give it as FP32."""
    return [
        helper.make_node("Cast", [source], [f"{result}.half"], to=half),
        helper.make_node("Cast", [f"{result}.half"], [result], to=TensorProto.FLOAT),
    ]


def as_float(tensor: onnx.TensorProto) -> onnx.TensorProto:
    """A half-precision tensor as FP32, which holds its values exactly."""
    return numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), tensor.name)
