"""The layers of one stage on two engines, compared with Polygraphy: where the values of a stage part.

Every tensor of floating point inside the stage's graph becomes an output of it, both engines run on the same
inputs, and each tensor is compared. An engine with so many outputs fuses fewer layers than the one in use, so
a difference that is in the latter alone does not show.
"""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
from polygraphy.backend.base import BaseRunner
from polygraphy.backend.onnx import BytesFromOnnx, ModifyOutputs
from polygraphy.backend.onnxrt import OnnxrtRunner, SessionFromOnnx
from polygraphy.common import TensorMetadata
from polygraphy.comparator import Comparator
from polygraphy.exception import PolygraphyException
from polygraphy.logger import G_LOGGER

from ...bundle import Bundle, Stage, TensorSpec
from ...engines.backends import check_runs_on_gpu
from ...engines.build.target import gpu_target
from ...engines.build.tensorrt import Recipe, build_plan
from ...engines.device.cuda import check_driver, find_gpu, open_device
from ...engines.device.session import DeviceSession
from ...engines.ort.cpu import OnnxRuntimeEngines
from ...engines.targets import CURRENT, TENSORRT_BACKENDS, BuildOptions
from ...engines.trt.contexts import TensorRTContexts
from ...engines.trt.execution import Execution
from ...engines.trt.library import Library, load_library
from ...errors import InputError
from ...runtime import TopK, Vocabulary
from ...runtime.images import ImageSource
from ...runtime.pipeline import encode, finish, prepare
from ...runtime.text import SentenceTokenizer, embed_names
from ...stages import BY_NAME
from .stages import RecordedEngines

# What the inputs of a stage are made from, with an image.
CATEGORIES = ("cup", "saucer", "spoon", "table", "wood", "sky", "tree", "person")
_FLOATS = {
    onnx.TensorProto.FLOAT: "float32",
    onnx.TensorProto.FLOAT16: "float16",
}


@dataclass(frozen=True)
class LayerError:
    """One tensor of a stage on an engine, against the same tensor on the reference.

    Attributes:
        position: of the operator that gives it, in the order of the graph, from 0.
        tensor: its name.
        operator: the ONNX operator that gives it.
        relative_error: root mean square of the difference over that of the reference; infinite where a value
            is not finite, or where the reference is zero and the engine is not.
        max_error: largest absolute difference.
        peak: largest absolute value of the reference.
    """

    position: int
    tensor: str
    operator: str
    relative_error: float
    max_error: float
    peak: float


class MarkedTensor(NamedTuple):
    """A tensor inside a graph: position and name of the operator that gives it, and its type for numpy."""

    position: int
    operator: str
    dtype: str


class TensorRTRunner(BaseRunner):
    """Runs a plan of TensorRT or TensorRT-RTX on this product's own device, one run at a time."""

    def __init__(self, plan: bytes, stage: Stage, library: Library, rebuild: str) -> None:
        """`stage` has the outputs that the plan has; `rebuild` is the command that errors name."""
        super().__init__(name=library.backend)
        self._plan = plan
        self._stage = stage
        self._library = library
        self._rebuild = rebuild

    def activate_impl(self) -> None:
        """Open the GPU and load the plan; raises InputError when that fails."""
        self._session = DeviceSession(open_device())
        file = Path(self._stage.file)
        with self._session.device.active():
            self._contexts = TensorRTContexts(self._library, file.with_suffix(".cache"), False)
            engine = self._contexts.load(self._plan, file, self._rebuild)
            self._execution: Execution | None = Execution(
                file.stem, self._stage, engine, 0, self._contexts, self._session.device.stream
            )

    def get_input_metadata_impl(self) -> Any:
        """Names, types and shapes of the inputs."""
        metadata = TensorMetadata()
        for tensor in self._stage.inputs:
            shape = [size if isinstance(size, int) else -1 for size in tensor.shape]
            metadata.add(tensor.name, dtype=np.dtype(tensor.dtype), shape=shape)
        return metadata

    def infer_impl(self, feed_dict: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """All outputs, on the host."""
        assert self._execution is not None
        with self._session.work(f"stage {self._stage.file}") as work:
            inputs = {tensor.name: work.upload(feed_dict[tensor.name]) for tensor in self._stage.inputs}
            outputs, scratch = self._execution.bind(work, inputs)
            self._execution.enqueue()
            downloads = {name: work.download(array) for name, array in outputs.items()}
            del inputs, scratch
        values = {name: self._session.received(work, each) for name, each in downloads.items()}
        self.inference_time = 0.0
        return values

    def deactivate_impl(self) -> None:
        """End the engine, and then the device."""
        with self._session.device.active():
            self._execution = None
            self._contexts.close()
        self._session.close()


def compare_with_tensorrt(bundle: Bundle, stage: str, image: ImageSource) -> list[LayerError]:
    """The layers of a stage on this machine's TensorRT, against ONNX Runtime on the CPU.

    An engine is built for the stage and the shapes that `image` gives; those in the bundle are left alone.

    Raises:
        InputError: no GPU, driver or TensorRT; the bundle has no such stage, or is BF16 or 8-bit; the image
            cannot be read; or a library refuses the graph.
    """
    check_stage(bundle, stage)
    gpu = find_gpu()
    library = _library()
    check_driver(library.backend, gpu)
    library.check_gpu(gpu)
    check_runs_on_gpu(bundle, library.backend)
    inputs = stage_inputs(bundle, stage, image)
    graph = bundle.verified(bundle.manifest.stages[stage].file)
    tensors = float_tensors(graph)
    with tempfile.TemporaryDirectory() as folder:
        marked = Path(folder) / f"{stage}.onnx"
        marked.write_bytes(marked_graph(graph, list(tensors)))
        options = BuildOptions(timing_cache=False)
        target, _ = gpu_target(library, CURRENT, BuildOptions())
        recipe = Recipe(library, options, target, marked.with_suffix(".timing"))
        description = bundle.manifest.stages[stage]
        profile = {
            tensor.name: (inputs[tensor.name].shape,) * 3
            for tensor in description.inputs
            if any(isinstance(size, str) for size in tensor.shape)
        }
        plan, _ = build_plan(recipe, marked, [profile] if profile else [], lambda phase, fraction: None)
        outputs = tuple(TensorSpec(name, tensor.dtype, ()) for name, tensor in tensors.items())
        described = replace(description, file=str(marked), outputs=outputs)
        rebuild = f"sed-trt inspect {bundle.path} --layers {stage}"
        runner = TensorRTRunner(bytes(plan), described, library, rebuild)
        return compare_layers(_onnxruntime(graph, list(tensors)), runner, inputs, inputs, tensors)


def compare_with_bundle(
    bundle: Bundle, stage: str, image: ImageSource, reference: Bundle
) -> list[LayerError]:
    """The layers of a stage against those of the same stage of another bundle, both on ONNX Runtime.

    The names that the export gives to tensors differ between precisions, so operators are compared by their
    order. Casts, of which a half-precision graph has more, are left out.

    Raises:
        InputError: a bundle has no such stage, or one that ONNX Runtime does not run on the CPU; the graphs
            have other operators; or the image cannot be read.
    """
    for each in (bundle, reference):
        check_stage(each, stage)
    expected = stage_inputs(reference, stage, image)
    inputs = {
        tensor.name: expected[tensor.name].astype(tensor.dtype)
        for tensor in bundle.manifest.stages[stage].inputs
    }
    graphs = [each.verified(each.manifest.stages[stage].file) for each in (reference, bundle)]
    names = same_tensors(*graphs)
    tensors = {name: tensor for name, tensor in float_tensors(graphs[1]).items() if name in names}
    first = _onnxruntime(graphs[0], [names[name] for name in tensors])
    second = _onnxruntime(graphs[1], list(tensors))
    return compare_layers(first, second, expected, inputs, tensors, names)


def same_tensors(reference: Path, graph: Path) -> dict[str, str]:
    """Tensor of `graph` to the one of `reference` that the same operator gives; those of casts are left out.

    Raises:
        InputError: the graphs differ in more than casts and types.
    """
    nodes = [
        [node for node in onnx.load(file).graph.node if node.op_type != "Cast"] for file in (reference, graph)
    ]
    if [node.op_type for node in nodes[0]] != [node.op_type for node in nodes[1]]:
        raise InputError(
            f"--against: {reference} and {graph} have other operators; export both from one checkpoint with "
            "this version"
        )
    return {
        name: same
        for theirs, ours in zip(*nodes, strict=True)
        for same, name in zip(theirs.output, ours.output, strict=True)
    }


def check_stage(bundle: Bundle, stage: str) -> None:
    """Refuse the name of a stage that a bundle does not have, or that has no layers of its own to compare.

    Raises:
        InputError: it is one of these.
    """
    # What GPUs alone run moves values or chooses among them; ONNX Runtime on the CPU never runs it.
    stages = [name for name in bundle.manifest.stages if not BY_NAME[name].device_only]
    if stage not in stages:
        raise InputError(
            f"--layers: {bundle.path} has no stage {stage!r} to compare; choose one of {', '.join(stages)}"
        )


def stage_inputs(bundle: Bundle, stage: str, image: ImageSource) -> dict[str, np.ndarray]:
    """What a stage takes when an image is compared with `CATEGORIES`, by ONNX Runtime on the CPU.

    Raises:
        InputError: the image cannot be read, or ONNX Runtime does not run the bundle on the CPU.
    """
    engines = RecordedEngines(OnnxRuntimeEngines(bundle, None, "", 1))
    # Where an image is segmented, either the scout runs or the two stages that stand in for it.
    engines.folds_vocabularies = stage in ("fold", "scout_folded")
    embedded = embed_names(CATEGORIES, bundle.manifest.templates, SentenceTokenizer(bundle), engines["text"])
    vocabulary = Vocabulary(CATEGORIES, np.concatenate(list(embedded)))
    (encoded,) = encode(engines, [prepare(engines, image, None)])
    finish(encoded, vocabulary, TopK(4))
    run = next(run for run in engines.runs if run.stage == stage)
    return {name: np.ascontiguousarray(value) for name, value in run.inputs.items()}


def float_tensors(graph: Path) -> dict[str, MarkedTensor]:
    """The tensors of floating point that the operators of an ONNX graph give, in their order, by name."""
    model = onnx.shape_inference.infer_shapes(onnx.load(graph))
    infos = (*model.graph.value_info, *model.graph.output)
    types = {info.name: info.type.tensor_type.elem_type for info in infos}
    return {
        name: MarkedTensor(position, node.op_type, _FLOATS[types[name]])
        for position, node in enumerate(model.graph.node)
        for name in node.output
        if types.get(name) in _FLOATS
    }


def marked_graph(graph: Path, tensors: Sequence[str]) -> bytes:
    """An ONNX graph, serialized, with these tensors as its outputs."""
    model = onnx.shape_inference.infer_shapes(onnx.load(graph))
    content: bytes = BytesFromOnnx(ModifyOutputs(model, outputs=list(tensors)))()
    return content


def compare_layers(
    reference: BaseRunner,
    engine: BaseRunner,
    expected_inputs: Mapping[str, np.ndarray],
    inputs: Mapping[str, np.ndarray],
    tensors: Mapping[str, MarkedTensor],
    names: Mapping[str, str] | None = None,
) -> list[LayerError]:
    """Run two engines with the same outputs and compare each of these.

    Args:
        reference: the runner whose values count as right.
        engine: the other one.
        expected_inputs: of the reference.
        inputs: of the engine: the same values, perhaps of another type.
        tensors: the outputs to compare, as `float_tensors` gives them.
        names: what the reference calls them; None where it does as the engine.

    Returns:
        The errors in the order of the graph.

    Raises:
        InputError: a runner fails.
    """
    runs = []
    with G_LOGGER.verbosity(G_LOGGER.CRITICAL):
        for runner, feed in ((reference, expected_inputs), (engine, inputs)):
            try:
                ((_, iterations),) = Comparator.run([runner], data_loader=[dict(feed)])
            except PolygraphyException as error:
                reason = " ".join(str(error).split())
                raise InputError(f"--layers: {runner.name} does not run the stage ({reason})") from error
            runs.append(iterations[0])
    return [
        layer_error(
            name, tensor, np.asarray(runs[1][name]), np.asarray(runs[0][names[name] if names else name])
        )
        for name, tensor in tensors.items()
    ]


def layer_error(name: str, tensor: MarkedTensor, values: np.ndarray, expected: np.ndarray) -> LayerError:
    """The error of one tensor's values against those of the reference, of the same shape."""
    right = expected.astype(np.float64)
    difference = np.abs(values.astype(np.float64) - right)
    size, error = (float(np.sqrt(np.mean(np.square(array)))) for array in (right, difference))
    largest = float(difference.max(initial=0))
    finite = np.isfinite(largest) and not (size == 0 and error > 0)
    return LayerError(
        tensor.position,
        name,
        tensor.operator,
        relative_error=error / (size or 1.0) if finite else float("inf"),
        max_error=largest if np.isfinite(largest) else float("inf"),
        peak=float(np.abs(right).max(initial=0)),
    )


def _onnxruntime(graph: Path, tensors: Sequence[str]) -> BaseRunner:
    session = SessionFromOnnx(marked_graph(graph, tensors), providers=["CPUExecutionProvider"])
    return OnnxrtRunner(session, name="onnxruntime")


def _library() -> Library:
    """The first library of TensorRT that is installed; raises the last one's InputError where none is."""
    first, last = TENSORRT_BACKENDS
    try:
        return load_library(first)
    except InputError:
        return load_library(last)
