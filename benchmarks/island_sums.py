"""How large the sums are that the FP32 islands form: beyond 65504 they do not fit into FP16."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..export.graph_specs import GraphSpec, graph_specs
from ..export.precision import FP32_STAGES, ISLANDS
from ..export.verification import derive_inputs, verification_inputs
from ..model import SED


def largest_sums(model: SED, names: Sequence[str]) -> dict[str, float]:
    """By island, the largest absolute sum that its formula forms in FP32 over all stages."""
    tensors = verification_inputs(model, names)
    sums = {island.name: 0.0 for island in ISLANDS}
    for spec in graph_specs(model):
        derive_inputs(spec, tensors, model)
        # An FP32 stage has no islands: all of it is one.
        watched = contextlib.nullcontext() if spec.name in FP32_STAGES else summing(spec.module, sums)
        with torch.no_grad(), watched:
            tensors.update(outputs_by_name(spec, spec.module(*(tensors[name] for name in spec.inputs))))
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


def outputs_by_name(spec: GraphSpec, outputs: Tensor | tuple[Tensor, ...]) -> dict[str, Tensor]:
    """A stage's outputs with the names of `spec`."""
    given = outputs if isinstance(outputs, tuple) else (outputs,)
    return dict(zip(spec.output_axes, given, strict=True))
