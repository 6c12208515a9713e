"""What a training run can be told, and each preset's recipe."""

import types
import typing
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from ..errors import InputError
from ..files import is_file, replacing
from ..model.presets import preset_named
from .optim import PARTS, TRAINED

# As `init`: no weights to start from.
RANDOM = "random"
CHOICES = {"mixed_precision": ("no", "fp16", "bf16"), "train": TRAINED}
POSITIVE = (
    "batch",
    "accumulate",
    "categories",
    "crop",
    "short_side",
    "long_side",
    "target_size",
    "lr",
    "grad_clip",
    "text_batch",
    "text_lr",
    "clip_batch",
    "clip_size",
    "clip_lr",
    "log_every",
    "picture_every",
    "save_every",
    "keep",
)
NOT_NEGATIVE = ("seed", "steps", "encoder_lr_factor", "weight_decay", "text_steps", "clip_steps", "workers")
# CLIP is pre-trained on so many crops of each scene.
CROPS_PER_SCENE = 4
# Two steps in three see the crops at half their size, of which the trunk makes a 32nd.
MULTIPLES = {"clip_batch": CROPS_PER_SCENE, "clip_size": 64}


@dataclass(frozen=True)
class TrainConfig:
    """Settings of a training run; the defaults are the published recipe of sed-b.

    Attributes:
        preset: name of the network's preset.
        data: name of the data set, or an own folder; its split "train" is trained on.
        root: folder of the data sets; None means $SED_DATASETS.
        init: "random", a tag of open_clip's pretrained weights, or a file: an open_clip or SED checkpoint.
        seed: of weights, the order of the samples and their augmentation.
        steps: optimiser steps of the segmentation training.
        batch: samples per step, in all processes and all parts of a step together.
        accumulate: parts that a process takes its share of a step in, one after the other.
        lr: peak learning rate of the decoder.
        encoder_lr_factor: the image encoder learns at this fraction of `lr`.
        weight_decay: AdamW's, none on norms.
        grad_clip: bound on the global gradient norm.
        train: "all", or "heads" for head0, head1 and head2 alone, which early rejection reads.
        freeze: parts that do not train: encoder, its stages res2 to res5, decoder, heads.
        guidance_gradient: let the image guidance shape the encoder; published SED does not.
        categories: categories per sample, those present included; None means all.
        vary_categories: let their number vary from step to step, from half of `categories` to one and a half
            times as many.
        crop: side in pixels of the crops and of the network's input; a multiple of 64, for sed-tiny of 32.
        short_side: length in pixels that the shorter side is resized to first; None means as it is.
        long_side: the most pixels that the longer side may then have.
        flip: mirror half of the samples.
        colour: SSD's colour augmentation.
        target_size: side in pixels of the maps on which the loss is taken; None means `crop`.
        text_steps: optimiser steps of the text pre-training on scenes' captions; 0 skips it.
        text_batch: captions per step.
        text_lr: peak learning rate of the text pre-training.
        clip_steps: optimiser steps of the CLIP pre-training on scenes; 0 skips it.
        clip_batch: image-caption pairs per step; a multiple of 4.
        clip_size: side of the crops CLIP is pre-trained on, in pixels, a multiple of 64; two steps in three
            see them at half that size, which is quicker and teaches scale.
        clip_lr: peak learning rate of the pre-training.
        mixed_precision: "no", "fp16" (on a GPU) or "bf16".
        checkpointing: compute the image trunk twice instead of keeping its activations.
        workers: processes that read samples, for each training process.
        log_every: steps between two lines of the log.
        picture_every: steps between two pictures of predictions.
        save_every: steps between two checkpoints.
        keep: how many of the newest checkpoints stay.
        half: store the trained weights in 16 bits; checkpoints are always whole.
    """

    preset: str = "sed-b"
    data: str = "coco-stuff"
    root: str | None = None
    init: str = "laion_aesthetic_s13b_b82k"
    seed: int = 0
    steps: int = 80_000
    batch: int = 4
    accumulate: int = 1
    lr: float = 2e-4
    encoder_lr_factor: float = 0.01
    weight_decay: float = 1e-4
    grad_clip: float = 0.01
    train: str = "all"
    freeze: tuple[str, ...] = ()
    guidance_gradient: bool = False
    categories: int | None = None
    vary_categories: bool = True
    crop: int = 768
    short_side: int | None = 768
    long_side: int = 2666
    flip: bool = True
    colour: bool = True
    target_size: int | None = None
    text_steps: int = 0
    text_batch: int = 64
    text_lr: float = 1e-3
    clip_steps: int = 0
    clip_batch: int = 64
    clip_size: int = 128
    clip_lr: float = 2e-3
    mixed_precision: str = "no"
    checkpointing: bool = False
    workers: int = 4
    log_every: int = 20
    picture_every: int = 1000
    save_every: int = 500
    keep: int = 2
    half: bool = False

    def __post_init__(self) -> None:
        """Refuse what cannot be trained with.

        Raises:
            InputError: a value is outside its range or choices, or two do not go together.
        """
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise InputError(f"{name} is {getattr(self, name)!r}; choose one of {', '.join(choices)}")
        for part in self.freeze:
            if part not in PARTS:
                raise InputError(f"freeze: {part!r} is no part; choose from {', '.join(PARTS)}")
        for name in POSITIVE:
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise InputError(f"{name} is {value}; it must be more than 0")
        for name in NOT_NEGATIVE:
            if not getattr(self, name) >= 0:
                raise InputError(f"{name} is {getattr(self, name)}; it must not be negative")
        for name, divisor in MULTIPLES.items():
            if getattr(self, name) % divisor:
                raise InputError(f"{name} is {getattr(self, name)}; it must be a multiple of {divisor}")
        side = 32 * preset_named(self.preset).attention_pool
        if self.crop % side:
            raise InputError(f"crop is {self.crop}; {self.preset} needs a multiple of {side}")
        if self.target_size is not None and self.crop % self.target_size:
            raise InputError(f"target_size is {self.target_size}; it must divide crop, which is {self.crop}")


SED_TINY: Mapping[str, Any] = {
    "data": "scenes",
    "init": RANDOM,
    "steps": 5000,
    "lr": 1e-3,
    "encoder_lr_factor": 1.0,
    # Its encoder has seen scenes for minutes, not pictures for weeks: it has much to learn from the guidance.
    "guidance_gradient": True,
    "categories": 28,
    "crop": 256,
    "short_side": None,
    "flip": False,
    "colour": False,
    "target_size": 64,
    "text_steps": 300,
    "clip_steps": 4000,
    "workers": 1,
    "half": True,
}
RECIPES: Mapping[str, Mapping[str, Any]] = {
    "sed-b": {},
    "sed-l": {"init": "laion2b_s29b_b131k_ft_soup"},
    "sed-tiny": SED_TINY,
}
# As many as COCO-Stuff has; all 512 names of the scenes would take three times the memory.
SCENES: Mapping[str, Any] = {"categories": 171, "vary_categories": False}


def recipe(preset: str, **changes: Any) -> TrainConfig:
    """The settings that `preset` is trained with: published for sed-b and sed-l, two CPU cores' for sed-tiny.

    Args:
        preset: name of the network's preset.
        changes: settings that differ. Weights to start from (`init`) replace the pre-training, unless its
            steps are given too. On scenes, sed-b and sed-l see as many categories as COCO-Stuff has, unless
            these are given.

    Raises:
        InputError: the preset is not known, or a setting cannot be.
    """
    settings = {"preset": preset_named(preset).name, **RECIPES[preset]}
    if changes.get("data") == "scenes" and preset != "sed-tiny":
        settings |= SCENES
    if changes.get("init", RANDOM) != RANDOM:
        settings |= {"text_steps": 0, "clip_steps": 0}
    return TrainConfig(**(settings | changes))


TYPES: dict[str, Any] = typing.get_type_hints(TrainConfig)
NAMED = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}


def read_settings(path: Path) -> dict[str, Any]:
    """The settings of a YAML file.

    Raises:
        InputError: the file is missing or no YAML mapping, or a setting is unknown or of another type.
    """
    if not is_file(path):
        raise InputError(f"{path}: no such file; give a YAML file of settings, such as a run's config.yaml")
    try:
        content, texts = both_ways(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise InputError(
            f"{path}: cannot be read as YAML ({reason}); write one `name: value` a line"
        ) from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise InputError(f"{path}: holds a {type(content).__name__}; write one `name: value` a line")
    return checked(content, texts, str(path))


def parse_settings(texts: Iterable[str]) -> dict[str, Any]:
    """The settings of texts such as "lr=1e-4" or "freeze=[res2, res3]"; values are YAML.

    Raises:
        InputError: a text has no "=", or a setting is unknown or of another type.
    """
    found: dict[str, Any] = {}
    unread: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise InputError(f"--set: {text!r} has no '='; write name=value")
        try:
            found[name.strip()], unread[name.strip()] = both_ways(value)
        except yaml.YAMLError as error:
            raise InputError(f"--set: the value of {text!r} is not YAML; quote it") from error
    return checked(found, unread, "--set")


def both_ways(text: str) -> tuple[Any, Any]:
    """What a YAML text holds, and the same with `no`, `2017` and the like left as texts.

    Raises:
        yaml.YAMLError: it is no YAML.
    """
    return yaml.safe_load(text), yaml.load(text, yaml.BaseLoader)


def checked(values: Mapping[Any, Any], texts: Mapping[str, Any], source: str) -> dict[str, Any]:
    """`values` with the types of `TrainConfig`'s fields.

    Args:
        values: as YAML reads them.
        texts: as they are written, which settings that are texts are taken from.
        source: what messages call them.

    Raises:
        InputError: a name is unknown or a value of another type; the message names `source`.
    """
    for name in values:
        if name not in TYPES:
            raise InputError(f"{source}: {name!r} is no setting; choose from {', '.join(TYPES)}")
    found = {}
    for name, value in values.items():
        as_written = value is not None and TYPES[name] in (str, str | None)
        found[name] = as_type(texts[name] if as_written else value, TYPES[name], f"{source}: {name}")
    return found


def as_type(value: Any, wanted: Any, what: str) -> Any:
    """`value` as the annotation `wanted`: bool, int, float, str, an optional one, or a tuple of texts.

    Raises:
        InputError: it is of another type.
    """
    optional = isinstance(wanted, types.UnionType)
    if optional:
        if value is None:
            return None
        wanted = next(each for each in typing.get_args(wanted) if each is not types.NoneType)
    if typing.get_origin(wanted) is tuple:
        items = [value] if isinstance(value, str) else value
        if isinstance(items, list | tuple) and all(isinstance(item, str) for item in items):
            return tuple(items)
        raise InputError(f"{what} is {value!r}; expected a list of texts")
    if wanted is float and isinstance(value, str):
        # YAML takes 1e-4, which has no point, for a text.
        with suppress(ValueError):
            value = float(value)
    if wanted is float and type(value) is int:
        value = float(value)
    if type(value) is not wanted:
        expected = NAMED[wanted] + (" or null" if optional else "")
        raise InputError(f"{what} is {value!r}; expected {expected}")
    return value


def write_settings(config: TrainConfig, path: Path) -> None:
    """Write every setting as YAML, which `read_settings` reads.

    Raises:
        InputError: the file cannot be written.
    """
    content = {
        name: list(value) if isinstance(value, tuple) else value for name, value in asdict(config).items()
    }
    with replacing(path) as temporary:
        temporary.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
