"""From a stage's module to an ONNX file, which differs only with the versions of the libraries."""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import onnx
import onnx_ir
import torch

from ..bundle import Stage, TensorSpec
from ..stages import TensorDefinition
from .stages import GraphSpec


def write_graph(spec: GraphSpec, path: Path, opset: int, metadata: Mapping[str, str]) -> Stage:
    """Export one stage.

    Args:
        spec: the stage.
        path: the file to write.
        opset: version of the ONNX operators.
        metadata: the graph's metadata_props.

    Returns:
        The stage as the manifest describes it.
    """
    dynamic = tuple(
        {axis: torch.export.Dim.DYNAMIC for axis in tensor.dynamic_axes} for tensor in spec.stage.inputs
    )
    with quiet(), torch.no_grad():
        program = torch.onnx.export(
            spec.module.eval(),
            tuple(spec.inputs.values()),
            dynamo=True,
            opset_version=opset,
            input_names=list(spec.inputs),
            output_names=[tensor.name for tensor in spec.stage.outputs],
            dynamic_shapes=dynamic,
            optimize=True,
        )
    assert program is not None
    rename_clashing_values(program.model.graph)
    model = program.model_proto
    name_axes(model.graph.input, spec.stage.inputs)
    name_axes(model.graph.output, spec.stage.outputs)
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, dict(metadata))
    strip_traces(model)
    onnx.save(model, path)
    onnx.checker.check_model(str(path))
    return Stage(path.name, describe(model.graph.input), describe(model.graph.output))


def rename_clashing_values(graph: onnx_ir.Graph) -> None:
    """Rename values inside the graph that have the name of one of its outputs."""
    outputs = {value.name: value for value in graph.outputs}
    for node in graph:
        for value in node.outputs:
            if value.name in outputs and value is not outputs[value.name]:
                value.name = f"{value.name}.inner"


def name_axes(values: Iterable[onnx.ValueInfoProto], tensors: Sequence[TensorDefinition]) -> None:
    """Give the dynamic axes of graph inputs or outputs the names that the stage's definition has for them."""
    for value, tensor in zip(values, tensors, strict=True):
        for axis, name in tensor.dynamic_axes.items():
            value.type.tensor_type.shape.dim[axis].dim_param = name


def strip_traces(model: onnx.ModelProto) -> None:
    """Delete the exporter's metadata of nodes and values: paths and stack traces of this machine."""
    for node in model.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    for value in (*model.graph.value_info, *model.graph.input, *model.graph.output):
        del value.metadata_props[:]
    for initializer in model.graph.initializer:
        del initializer.metadata_props[:]
    del model.graph.metadata_props[:]
    # The symbolic sizes in it have the tracer's names, which no longer match the renamed axes.
    del model.graph.value_info[:]


def describe(values: Iterable[onnx.ValueInfoProto]) -> tuple[TensorSpec, ...]:
    """The manifest's description of graph inputs or outputs."""
    return tuple(
        TensorSpec(
            value.name,
            onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type).name,
            tuple(dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim),
        )
        for value in values
    )


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep the exporter's progress prints, warnings and log lines from the user."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
