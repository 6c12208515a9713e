"""Which tensors lose most in half precision, and what each FP32 island is worth: in PyTorch, on a photo."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...export.precision import ISLANDS, Island, lower_spec
from ...export.stages import GraphSpec, graph_specs
from ...export.verification import derive_inputs, verification_inputs
from ...model import SED


def largest_sums(model: SED, names: Sequence[str]) -> dict[str, float]:
    """By island, the largest absolute sum that its formula forms in FP32 over all stages."""
    tensors = verification_inputs(model, names)
    sums = {island.name: 0.0 for island in ISLANDS}
    for spec in graph_specs(model):
        derive_inputs(spec, tensors, model)
        # An FP32 stage has no islands: all of it is one.
        with contextlib.nullcontext() if spec.stage.fp32_reason else summing(spec.module, sums):
            tensors.update(spec.run(tensors))
    return sums


@contextlib.contextmanager
def summing(stage: nn.Module, sums: dict[str, float]) -> Iterator[None]:
    """Raise the entries of `sums` while the block runs, as the islands inside `stage` form larger ones."""

    def hook(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def raise_sum(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            sums[name] = max(sums[name], float(SUMS[name](module, inputs)))

        return raise_sum

    hooks = [
        module.register_forward_pre_hook(hook(island.name))
        for island in ISLANDS
        for module in stage.modules()
        if isinstance(module, island.modules)
    ]
    try:
        yield
    finally:
        for each in hooks:
            each.remove()


def sum_of_layer_norm(norm: nn.LayerNorm, inputs: tuple[Tensor, ...]) -> Tensor:
    """Largest sum of squares over one position's channels."""
    # timm's LayerNorm2d normalises axis 1 of (B, C, h, w); the others the last axis.
    axis = 1 if inputs[0].ndim == 4 and inputs[0].shape[-1] != norm.normalized_shape[0] else -1
    return inputs[0].square().sum(axis).max()


def sum_of_group_norm(norm: nn.GroupNorm, inputs: tuple[Tensor, ...]) -> Tensor:
    """Largest sum of squares over one group's map."""
    return inputs[0].unflatten(1, (norm.num_groups, -1)).square().sum((2, 3, 4)).max()


def sum_of_cosine(_cost_map: nn.Module, inputs: tuple[Tensor, ...]) -> Tensor:
    """Largest sum of squares over one position's embedding."""
    return inputs[0].square().sum(1).max()


def sum_of_attention(_attention: nn.Module, inputs: tuple[Tensor, ...]) -> Tensor:
    """Largest sum over the categories of phi(key)."""
    projected, alive = inputs
    key = F.elu(projected.chunk(3, dim=-1)[1]) + 1
    return key[:, alive].sum(1).max()


def sum_of_head(head: nn.Module, inputs: tuple[Tensor, ...]) -> Tensor:
    """Largest logit."""
    # Not a call of the module, which would come back here.
    logits: Tensor = head.forward(inputs[0])
    return logits.abs().max()


SUMS: dict[str, Callable[[Any, tuple[Tensor, ...]], Tensor]] = {
    "layer norm": sum_of_layer_norm,
    "group norm": sum_of_group_norm,
    "cosine": sum_of_cosine,
    "attention sums": sum_of_attention,
    "heads": sum_of_head,
}


Progress = Callable[[int, int], None]


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
    """What an island is for.

    Attributes:
        island: its name.
        reason: why it is there, as the code says it.
        error_with: largest relative error among the outputs of its modules, all islands in place.
        error_without: the same where only this island is computed in half, with sums in FP32, as PyTorch and
            ONNX Runtime form them on the CPU.
        largest_sum: largest sum that the island forms; where an engine sums in FP16, it overflows at 65504.
    """

    island: str
    reason: str
    error_with: float
    error_without: float
    largest_sum: float


def tensor_errors(
    model: SED,
    precision: str,
    names: Sequence[str],
    left_out: Sequence[Island] = (),
    progress: Progress | None = None,
) -> list[TensorError]:
    """Run every half-precision stage on FP32's inputs and compare what each of its modules gives.

    Args:
        model: in FP32; it is left alone.
        precision: "fp16" or "bf16".
        names: categories to compare the photo with.
        left_out: islands to compute in half.
        progress: called with (stages done, stages in all).

    Returns:
        The errors, largest relative error first.
    """
    tensors = verification_inputs(model, names)
    specs = graph_specs(model)
    errors: list[TensorError] = []
    for done, spec in enumerate(specs):
        derive_inputs(spec, tensors, model)
        if spec.stage.fp32_reason:
            given = spec.run(tensors)
        else:
            given, whole = watched(spec, tensors)
            _, half = watched(lower_spec(spec, precision, left_out), tensors)
            errors += [compared(spec.name, path, whole[path], half[path]) for path in whole]
        tensors.update(given)
        if progress is not None:
            progress(done + 1, len(specs))
    return sorted(errors, key=lambda error: -error.relative_error)


def island_worths(
    model: SED, precision: str, names: Sequence[str], progress: Progress | None = None
) -> list[IslandWorth]:
    """Measure every island with and without it; `progress` is called with (islands done, islands in all)."""
    complete = tensor_errors(model, precision, names)
    sums = largest_sums(model, names)
    specs = graph_specs(model)
    worths = []
    for done, island in enumerate(ISLANDS):
        inside = {
            (spec.name, path)
            for spec in specs
            for path, module in spec.module.named_modules()
            if isinstance(module, island.modules)
        }
        without = tensor_errors(model, precision, names, [island])
        with_it, without_it = (
            max(error.relative_error for error in errors if (error.stage, error.tensor) in inside)
            for errors in (complete, without)
        )
        worths.append(IslandWorth(island.name, island.reason, with_it, without_it, sums[island.name]))
        if progress is not None:
            progress(done + 1, len(ISLANDS))
    return worths


def watched(spec: GraphSpec, tensors: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Run a stage on `tensors`, rounded to the types it takes.

    Returns:
        Its outputs by name, and what each module inside it gave by path.
    """
    inputs = {name: tensors[name].to(example.dtype) for name, example in spec.inputs.items()}
    with recording(spec.module) as inner:
        outputs = spec.run(inputs)
    return outputs, inner


@contextmanager
def recording(stage: nn.Module) -> Iterator[dict[str, Tensor]]:
    """Collect, while the block runs, the floating-point tensor each module inside `stage` gives, by path."""
    given: dict[str, Tensor] = {}

    def hook(path: str) -> Callable[[nn.Module, object, object], None]:
        def keep(_module: nn.Module, _inputs: object, output: object) -> None:
            if isinstance(output, Tensor) and output.is_floating_point():
                given[path] = output

        return keep

    hooks = [
        module.register_forward_hook(hook(path))
        for path, module in stage.named_modules()
        if module is not stage and not isinstance(module, nn.Identity | nn.Dropout)
    ]
    try:
        yield given
    finally:
        for each in hooks:
            each.remove()


def compared(stage: str, path: str, whole: Tensor, half: Tensor) -> TensorError:
    """The error of one tensor."""
    difference = half.float() - whole
    relative = float("inf")
    if torch.isfinite(difference).all():
        relative = float(difference.square().mean().sqrt() / whole.square().mean().sqrt().clamp(min=1e-12))
    return TensorError(stage, path, relative, float(difference.abs().max()), float(whole.abs().max()))
