"""Which parameters train, AdamW's parameter groups, and the learning rate's schedule."""

import math
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import nn

from ..errors import InputError
from .config import NetworkPart, TrainConfig

TRUNK = "clip.visual.trunk."
# What the names of a part's parameters begin with.
PREFIXES: Mapping[NetworkPart, tuple[str, ...]] = {
    "encoder": ("clip.visual.",),
    "res2": (f"{TRUNK}stem.", f"{TRUNK}stages.0."),
    "res3": (f"{TRUNK}stages.1.",),
    "res4": (f"{TRUNK}stages.2.",),
    "res5": (f"{TRUNK}stages.3.",),
    "decoder": ("decoder.",),
    "heads": ("decoder.head0.", "decoder.head1.", "decoder.head2."),
}
NORMS = (nn.LayerNorm, nn.GroupNorm)


def is_trained(name: str, train: str = "all", freeze: Sequence[NetworkPart] = ()) -> bool:
    """Whether the parameter `name` of SED trains; the text encoder never does.

    Args:
        name: as `SED.named_parameters` gives it.
        train: "all" or "heads", the three aux heads.
        freeze: parts that do not train.
    """
    chosen = PREFIXES["heads"] if train == "heads" else PREFIXES["encoder"] + PREFIXES["decoder"]
    frozen = tuple(prefix for part in freeze for prefix in PREFIXES[part])
    return name.startswith(chosen) and not name.startswith(frozen)


def select_trained(model: nn.Module, config: TrainConfig) -> list[nn.Parameter]:
    """Let those parameters of SED require gradients that `config` trains, and no others.

    Raises:
        InputError: it trains none.
    """
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(is_trained(name, config.train, config.freeze))
    trained = trainable(model)
    if not trained:
        frozen = ", ".join(config.freeze)
        raise InputError(f"train {config.train} with {frozen} frozen leaves nothing to train; freeze less")
    return trained


def trainable(module: nn.Module) -> list[nn.Parameter]:
    """The parameters of `module` that require gradients."""
    return [parameter for parameter in module.parameters() if parameter.requires_grad]


def parameter_groups(module: nn.Module, lr: float, weight_decay: float) -> list[dict[str, object]]:
    """Split what trains in `module` into weights, which decay, and norms, biases and scales, which do not."""
    return _groups(module, lr, weight_decay, {id(p) for p in module.parameters() if p.ndim <= 1})


def published_groups(module: nn.Module, lr: float, weight_decay: float) -> list[dict[str, object]]:
    """Split what trains in `module` as published: norms do not decay, everything else does."""
    norms = [each for each in module.modules() if isinstance(each, NORMS)]
    return _groups(module, lr, weight_decay, {id(p) for norm in norms for p in norm.parameters()})


def _groups(module: nn.Module, lr: float, weight_decay: float, exempt: set[int]) -> list[dict[str, object]]:
    """AdamW's groups of what trains in `module`; parameters whose `id` is in `exempt` do not decay."""
    trained = trainable(module)
    groups: list[dict[str, object]] = [
        {"params": [p for p in trained if id(p) not in exempt], "lr": lr, "weight_decay": weight_decay},
        {"params": [p for p in trained if id(p) in exempt], "lr": lr, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def adamw(groups: Iterable[dict[str, object]]) -> torch.optim.AdamW:
    """AdamW that remembers each group's peak learning rate."""
    optimizer = torch.optim.AdamW(groups)
    for group in optimizer.param_groups:
        group["peak"] = group["lr"]
    return optimizer


def set_lr(optimizer: torch.optim.Optimizer, step: int, steps: int, warm_up: int = 0) -> None:
    """Set every group to lr = peak * min(1, (step + 1) / warm_up) * (1 + cos(pi * step / steps)) / 2.

    Args:
        optimizer: of `adamw`.
        step: from 0.
        steps: after which the learning rate is 0.
        warm_up: steps over which it rises; 0 means none.
    """
    factor = 0.5 * (1 + math.cos(math.pi * step / steps))
    if warm_up:
        factor *= min(1.0, (step + 1) / warm_up)
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * factor
