"""Which parts of SED train."""

from collections.abc import Iterable, Sequence

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
