"""AdamW with a cosine schedule, shared by all trainings."""

import math
from collections.abc import Iterable, Sequence

import torch
from torch import nn

from ..errors import InputError

TRUNK = "clip.visual.trunk."
PARTS: dict[str, tuple[str, ...]] = {
    "encoder": ("clip.visual.",),
    "res2": (f"{TRUNK}stem.", f"{TRUNK}stages.0."),
    "res3": (f"{TRUNK}stages.1.",),
    "res4": (f"{TRUNK}stages.2.",),
    "res5": (f"{TRUNK}stages.3.",),
    "decoder": ("decoder.",),
    "heads": ("decoder.head0.", "decoder.head1.", "decoder.head2."),
}
TRAINED = ("all", "heads")


def is_trained(name: str, train: str = "all", freeze: Sequence[str] = ()) -> bool:
    """Whether the parameter `name` of SED trains; the text encoder never does.

    Args:
        name: as `SED.named_parameters` gives it.
        train: "all" or "heads", the three that early rejection reads.
        freeze: keys of PARTS that do not train.
    """
    wanted = PARTS["heads"] if train == "heads" else PARTS["encoder"] + PARTS["decoder"]
    frozen = tuple(prefix for part in freeze for prefix in PARTS[part])
    return name.startswith(wanted) and not name.startswith(frozen)


def check_something_trains(names: Iterable[str], train: str, freeze: Sequence[str]) -> None:
    """Refuse a training of nothing.

    Args:
        names: of SED's parameters.
        train: as for `is_trained`.
        freeze: as for `is_trained`.

    Raises:
        InputError: none of them trains.
    """
    if not any(is_trained(name, train, freeze) for name in names):
        raise InputError(
            f"train {train} with {', '.join(freeze)} frozen leaves nothing to train; freeze less"
        )


NORMS = (nn.LayerNorm, nn.GroupNorm)


def parameter_groups(module: nn.Module, lr: float, weight_decay: float) -> list[dict[str, object]]:
    """Split what trains in `module` into weights, which decay, and norms, biases and scales, which do not."""
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    return [
        {"params": [p for p in trained if p.ndim > 1], "lr": lr, "weight_decay": weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "lr": lr, "weight_decay": 0.0},
    ]


def published_groups(module: nn.Module, lr: float, weight_decay: float) -> list[dict[str, object]]:
    """Split what trains in `module` as published: norms do not decay, everything else does."""
    norms = {id(p) for each in module.modules() if isinstance(each, NORMS) for p in each.parameters()}
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    groups: list[dict[str, object]] = [
        {"params": [p for p in trained if id(p) not in norms], "lr": lr, "weight_decay": weight_decay},
        {"params": [p for p in trained if id(p) in norms], "lr": lr, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def adamw(groups: Iterable[dict[str, object]]) -> torch.optim.AdamW:
    """AdamW that remembers each group's peak learning rate."""
    optimizer = torch.optim.AdamW(groups)
    for group in optimizer.param_groups:
        group["peak"] = group["lr"]
    return optimizer


def set_lr(optimizer: torch.optim.Optimizer, step: int, steps: int, warm_up: int = 0) -> None:
    """Set every group to lr = peak * min(1, (step + 1) / warm_up) * (1 + cos(pi * step / steps)) / 2."""
    factor = 0.5 * (1 + math.cos(math.pi * step / steps))
    if warm_up:
        factor *= min(1.0, (step + 1) / warm_up)
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * factor
