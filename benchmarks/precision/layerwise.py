"""Which tensors lose most in half precision, and what each FP32 island is worth: in PyTorch, on a photo."""

from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...bundle import HALF_PRECISIONS
from ...errors import InputError
from ...export.convnext import ChannelNorm
from ...export.precision import ISLANDS, Island, lower_spec
from ...export.stages import GraphSpec, graph_specs
from ...export.verification import derive_inputs, verification_inputs
from ...files import is_folder
from ...model import SED
from ...train.scenes import VOCABULARY

# How many tensors a results file names.
WORST_TENSORS = 20


@dataclass(frozen=True)
class TensorError:
    """The output of one module inside a stage, against FP32 on the same inputs of the stage.

    Attributes:
        stage: name of the stage.
        tensor: the module's path inside the stage.
        relative_error: root mean square of the difference over that of the FP32 values; infinite when one of
            the half-precision values is not finite.
        max_error: largest absolute difference.
        peak: largest absolute FP32 value; FP16 ends at 65504.
    """

    stage: str
    tensor: str
    relative_error: float
    max_error: float
    peak: float


@dataclass(frozen=True)
class IslandWorth:
    """What an FP32 island gains.

    Attributes:
        island: its name.
        reason: why half is not enough there, see `Island`.
        error_with: largest relative error among the outputs of its modules, all islands in place.
        error_without: the same where only this island is computed in half, with sums in FP32, as PyTorch and
            ONNX Runtime form them on the CPU.
        largest_sum: largest absolute sum that the island's formula forms in FP32 over all stages; where an
            engine sums in FP16, it overflows at 65504.
    """

    island: str
    reason: str
    error_with: float
    error_without: float
    largest_sum: float


def evaluate_layers(
    path: Path, precision: str, report: Callable[[str, int, int], None]
) -> tuple[str, dict[str, Any]]:
    """Kind and content of the results file of `sed-trt evaluate --layerwise`.

    Args:
        path: of a checkpoint.
        precision: "fp16" or "bf16".
        report: called with (what is being done, stages done, stages in all).

    Raises:
        InputError: the path is no checkpoint, or the precision is neither of the two.
    """
    if precision not in HALF_PRECISIONS:
        raise InputError(f"--layerwise: {precision!r} is unknown; choose fp16 or bf16")
    if is_folder(path):
        raise InputError(f"{path}: is a folder; --layerwise looks into a checkpoint file")
    model = SED.from_checkpoint(path)
    errors, worths = layer_errors(
        model, precision, VOCABULARY, lambda done, total: report("comparing stages", done, total)
    )
    return "layerwise", {
        "source": {"name": path.name, "runs_on": "PyTorch", "precision": precision},
        "data": "the verification photo",
        "categories": len(VOCABULARY),
        "tensors": [asdict(error) for error in errors[:WORST_TENSORS]],
        "islands": [asdict(worth) for worth in worths],
    }


def layer_errors(
    model: SED, precision: str, names: Sequence[str], progress: Callable[[int, int], None]
) -> tuple[list[TensorError], list[IslandWorth]]:
    """Run every half-precision stage on FP32's inputs, with all islands and without each one of them.

    Args:
        model: in FP32; it is left alone.
        precision: "fp16" or "bf16".
        names: categories to compare the photo with.
        progress: called with (stages done, stages in all).

    Returns:
        The errors of all tensors, largest relative error first, and the islands.
    """
    tensors = verification_inputs(model, names)
    specs = graph_specs(model)
    errors: list[TensorError] = []
    error_with, error_without, largest_sum = (dict.fromkeys(ISLANDS, 0.0) for _ in range(3))
    for done, spec in enumerate(specs, 1):
        derive_inputs(spec, tensors, model)
        if spec.stage.fp32_reason is not None:
            outputs = _run(spec, tensors)
        else:
            with _summing(spec.module, largest_sum), _recording(spec.module) as exact:
                outputs = _run(spec, tensors)
            of_stage = _errors(spec, precision, [], tensors, exact)
            errors += of_stage
            for island in ISLANDS:
                modules = spec.module.named_modules()
                inside = {path for path, module in modules if isinstance(module, island.modules)}
                # A stage holds modules that it does not run.
                if inside & exact.keys():
                    without = _errors(spec, precision, [island], tensors, exact)
                    error_with[island] = max(error_with[island], _largest(of_stage, inside))
                    error_without[island] = max(error_without[island], _largest(without, inside))
        tensors.update(outputs)
        progress(done, len(specs))
    worths = [
        IslandWorth(each.name, each.reason, error_with[each], error_without[each], largest_sum[each])
        for each in ISLANDS
    ]
    return sorted(errors, key=lambda error: -error.relative_error), worths


def _run(spec: GraphSpec, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The outputs of a stage by name, of inputs rounded to the types that it takes."""
    return spec.run({name: tensors[name].to(example.dtype) for name, example in spec.inputs.items()})


def _errors(
    spec: GraphSpec,
    precision: str,
    left_out: Sequence[Island],
    tensors: Mapping[str, Tensor],
    exact: Mapping[str, Tensor],
) -> list[TensorError]:
    """The errors of a stage's tensors in half precision without some islands, against the FP32 ones."""
    lowered = lower_spec(spec, precision, left_out)
    with _recording(lowered.module) as half:
        _run(lowered, tensors)
    return [_error(spec.name, path, half[path], expected) for path, expected in exact.items()]


def _error(stage: str, path: str, half: Tensor, exact: Tensor) -> TensorError:
    difference = half.float() - exact
    relative = float("inf")
    if torch.isfinite(difference).all():
        relative = float(difference.square().mean().sqrt() / exact.square().mean().sqrt().clamp(min=1e-12))
    return TensorError(stage, path, relative, float(difference.abs().max()), float(exact.abs().max()))


def _largest(errors: Iterable[TensorError], paths: Container[str]) -> float:
    """The largest relative error among the outputs of these modules."""
    return max(error.relative_error for error in errors if error.tensor in paths)


@contextmanager
def _recording(stage: nn.Module) -> Iterator[dict[str, Tensor]]:
    """Collect, while the block runs, the floating-point output of each module inside a stage, by path."""
    outputs: dict[str, Tensor] = {}

    def hook(path: str) -> Callable[[nn.Module, object, object], None]:
        def record(_module: nn.Module, _inputs: object, output: object) -> None:
            if isinstance(output, Tensor) and output.is_floating_point():
                outputs[path] = output

        return record

    with ExitStack() as hooks:
        for path, module in stage.named_modules():
            if module is not stage and not isinstance(module, nn.Identity | nn.Dropout):
                hooks.callback(module.register_forward_hook(hook(path)).remove)
        yield outputs


@contextmanager
def _summing(stage: nn.Module, largest: dict[Island, float]) -> Iterator[None]:
    """Raise the entries of `largest`, while the block runs, to the sums that the islands of a stage form."""

    def hook(island: Island) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def raise_sum(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            largest[island] = max(largest[island], float(SUMS[island.name](module, inputs)))

        return raise_sum

    with ExitStack() as hooks:
        for module in stage.modules():
            for island in ISLANDS:
                if isinstance(module, island.modules):
                    hooks.callback(module.register_forward_pre_hook(hook(island)).remove)
        yield


def _layer_norm_sum(norm: nn.Module, inputs: tuple[Tensor, ...]) -> Tensor:
    """Largest sum of squares over one position's channels: axis 1 of a map, the last axis of tokens."""
    return inputs[0].square().sum(1 if isinstance(norm, ChannelNorm) else -1).max()


def _group_norm_sum(norm: nn.GroupNorm, inputs: tuple[Tensor, ...]) -> Tensor:
    """Largest sum of squares over one group's map."""
    return inputs[0].unflatten(1, (norm.num_groups, -1)).square().sum((2, 3, 4)).max()


def _cosine_sum(_module: nn.Module, inputs: tuple[Tensor, ...]) -> Tensor:
    """Largest sum of squares over the embedding of one position, (1, C, h, w), or prompt, (T, P, C)."""
    return inputs[0].square().sum(1 if inputs[0].ndim == 4 else -1).max()


def _attention_sum(_attention: nn.Module, inputs: tuple[Tensor, ...]) -> Tensor:
    """Largest sum over the categories of phi(key)."""
    _query, projected, _value, alive = inputs
    key = F.elu(projected) + 1
    return key[:, alive].sum(1).max()


def _head_sum(head: nn.Module, inputs: tuple[Tensor, ...]) -> Tensor:
    """Largest logit."""
    # Not a call of the module, which would come back here.
    logits: Tensor = head.forward(inputs[0])
    return logits.abs().max()


# By the name of an island: the largest sum that one of its modules forms of these inputs.
SUMS: dict[str, Callable[[Any, tuple[Tensor, ...]], Tensor]] = {
    "layer norm": _layer_norm_sum,
    "group norm": _group_norm_sum,
    "cosine": _cosine_sum,
    "attention sums": _attention_sum,
    "heads": _head_sum,
}
