"""Building one plan with TensorRT or TensorRT-RTX."""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from ...errors import InputError
from ...files import is_file, read_file, replacing
from ..profiles import Profile
from ..store import NetworkSummary
from ..targets import BuildOptions
from ..trt.library import Library
from .progress import BuildState, progress_monitor, run_in_worker

# Some reasons of a library quote whole tensors.
_REASON_LENGTH = 300
# Layer type to the class that has its weights.
_CONVOLUTIONS = {"CONVOLUTION": "IConvolutionLayer", "DECONVOLUTION": "IDeconvolutionLayer"}


@dataclass(frozen=True)
class Recipe:
    """What a plan is built with.

    Attributes:
        library: TensorRT or TensorRT-RTX.
        options: of the build.
        target: canonical name of the GPU or GPUs to build for.
        timing_file: where kernel times are kept from one build to the next, if the library does so.
    """

    library: Library
    options: BuildOptions
    target: str
    timing_file: Path


def build_plan(
    recipe: Recipe, graph: Path, profiles: Sequence[Profile], report: Callable[[str, float], None]
) -> tuple[Any, NetworkSummary]:
    """Build the plan of an ONNX graph.

    Args:
        recipe: how to build.
        graph: the ONNX file.
        profiles: of the graph's dynamic inputs.
        report: called with the current phase and the fraction that is done.

    Returns:
        The plan as an object with the buffer protocol, and the layers of its network.

    Raises:
        InputError: the parser or the builder refuses the graph; names its reasons.
        KeyboardInterrupt: the build was interrupted; the library's threads have ended.
    """
    state = BuildState()
    return run_in_worker(
        lambda: _build(recipe, graph, profiles, state),
        lambda: report(*state.progress()),
        state.cancelled.set,
    )


def _build(
    recipe: Recipe, graph: Path, profiles: Sequence[Profile], state: BuildState
) -> tuple[Any, NetworkSummary]:
    library = recipe.library
    module = library.module
    logger = library.logger()
    try:
        builder = module.Builder(logger)
    except TypeError as error:
        raise _refused(recipe, graph, "the builder does not start", logger.errors) from error
    network = library.create_network(builder)
    parser = module.OnnxParser(network, logger)
    if not parser.parse_from_file(str(graph)):
        errors = [_parser_error(parser.get_error(index)) for index in range(parser.num_errors)]
        raise _refused(recipe, graph, "the graph cannot be parsed", errors)
    config = builder.create_builder_config()
    library.configure(config, recipe.options, recipe.target)
    monitor = progress_monitor(module, state)
    config.progress_monitor = monitor
    for profile in profiles:
        _add_profile(builder, config, profile)
    keeps_times = library.has_timing_cache and recipe.options.timing_cache is not False
    if keeps_times:
        _load_times(config, recipe.timing_file)
    summary = summarize(module, network)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        if state.cancelled.is_set():
            raise KeyboardInterrupt
        raise _refused(recipe, graph, "the build failed", logger.errors)
    if keeps_times:
        with replacing(recipe.timing_file) as temporary:
            temporary.write_bytes(memoryview(config.get_timing_cache().serialize()))
    return plan, summary


def summarize(module: ModuleType, network: Any) -> NetworkSummary:
    """Count the layers of a parsed network."""
    precisions: dict[str, Counter[str]] = {}
    weights: Counter[str] = Counter()
    for layer in _layers(network):
        if not layer.num_outputs:
            continue
        dtype = layer.get_output(0).dtype.name
        precisions.setdefault(layer.type.name, Counter())[dtype] += 1
        if layer.type.name in _CONVOLUTIONS:
            weights[dtype] += _kernel_size(module, layer)
    return NetworkSummary(
        network.num_layers,
        {kind: dict(counts) for kind, counts in sorted(precisions.items())},
        dict(weights),
    )


def _layers(network: Any) -> Iterator[Any]:
    return (network.get_layer(index) for index in range(network.num_layers))


def _kernel_size(module: ModuleType, layer: Any) -> int:
    if layer.num_inputs > 1:
        return math.prod(layer.get_input(1).shape)
    # The bindings hand out the base class; changing the class is how TensorRT documents the downcast.
    layer.__class__ = getattr(module, _CONVOLUTIONS[layer.type.name])
    return int(layer.kernel.size)


def _add_profile(builder: Any, config: Any, profile: Profile) -> None:
    native = builder.create_optimization_profile()
    for name, shapes in profile.items():
        native.set_shape(name, *shapes)
    config.add_optimization_profile(native)


def _load_times(config: Any, file: Path) -> None:
    known = read_file(file) if is_file(file) else b""
    # The library refuses times of another version or GPU; an empty cache collects new ones.
    cache = config.create_timing_cache(known)
    if cache is None or not config.set_timing_cache(cache, False):
        config.set_timing_cache(config.create_timing_cache(b""), False)


def _parser_error(error: Any) -> str:
    operator = error.node_operator() or "no operator"
    return f"node {error.node_name() or error.node()!r} ({operator}): {error.desc()}"


def _refused(recipe: Recipe, graph: Path, what: str, reasons: Sequence[str]) -> InputError:
    shortened = (" ".join(reason.split())[:_REASON_LENGTH] for reason in reasons)
    listed = "; ".join(shortened) or "it gives no reason"
    library = recipe.library
    # A workspace that is too small is the most frequent reason by far.
    tight = recipe.options.workspace is not None
    advice = "raise the workspace or leave it out" if tight else "try another version of it, lower limits"
    return InputError(
        f"{graph}: {library.backend} {library.version} for {recipe.target}: {what} ({listed}); "
        f"{advice}, or the backend onnxruntime"
    )
