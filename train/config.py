"""The settings of a training run: types and ranges, each preset's recipe, and YAML."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import yaml
from msgspec import Meta, inspect

from ..errors import InputError
from ..files import is_file, replacing
from ..model.presets import preset_named

# The value of `init` for random weights.
RANDOM = "random"
# Crops of each scene that CLIP is pre-trained on.
CROPS_PER_SCENE = 4

Count = Annotated[int, Meta(gt=0)]
CountOrZero = Annotated[int, Meta(ge=0)]
Rate = Annotated[float, Meta(gt=0)]
RateOrZero = Annotated[float, Meta(ge=0)]
NetworkPart = Literal["encoder", "res2", "res3", "res4", "res5", "decoder", "heads"]


class TrainConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of a training run; the defaults are the published recipe of sed-b.

    The constructor checks nothing; `recipe` checks every value.

    Attributes:
        preset: name of the network's preset.
        data: name of the data set, or an own folder; its split "train" is trained on.
        root: folder of the data sets; None means $SED_DATASETS.
        init: "random", a tag of open_clip's pretrained weights, or a file: an open_clip or SED checkpoint.
        seed: of weights, the order of the samples and their augmentation.
        steps: optimizer steps of the segmentation training.
        batch: samples per step, in all processes and micro-batches together.
        accumulate: micro-batches that a process splits its share of a step into.
        lr: peak learning rate of the decoder.
        encoder_lr_factor: the image encoder's learning rate as a fraction of `lr`.
        weight_decay: AdamW's, none on norms.
        grad_clip: bound on the global gradient norm.
        train: "all", or "heads" for the three aux heads alone, which early rejection reads.
        freeze: parts that do not train; res2 to res5 are the stages of the encoder.
        guidance_gradient: let the image guidance shape the encoder; published SED does not.
        categories: categories per sample, those present included; None means all.
        vary_categories: draw their number anew for each step, from half of `categories` to one and a half
            times as many.
        crop: side in pixels of the crops and of the network's input; a multiple of 64, for sed-tiny of 32.
        short_side: length in pixels that the shorter side is resized to first; None means as it is.
        long_side: limit in pixels on the longer side after that.
        flip: mirror half of the samples.
        colour: SSD's colour augmentation.
        target_size: side in pixels of the maps on which the loss is taken; None means `crop`.
        text_steps: optimizer steps of the text pre-training on scenes' captions; 0 skips it.
        text_batch: captions per step.
        text_lr: peak learning rate of the text pre-training.
        clip_steps: optimizer steps of the CLIP pre-training on scenes; 0 skips it.
        clip_batch: image-caption pairs per step; a multiple of 4.
        clip_size: side of the crops CLIP is pre-trained on, in pixels, a multiple of 64; two steps in three
            see them at half that size, which is quicker and teaches scale.
        clip_lr: peak learning rate of the CLIP pre-training.
        mixed_precision: "no", "fp16" (on a GPU) or "bf16".
        checkpointing: compute the image trunk twice instead of keeping its activations.
        workers: processes that read samples, for each training process.
        log_every: steps between two lines of the log.
        picture_every: steps between two images of predictions.
        save_every: steps between two checkpoints.
        keep: how many of the newest checkpoints stay.
        half: store the trained weights in 16 bits; checkpoints are always in 32.
    """

    preset: str = "sed-b"
    data: str = "coco-stuff"
    root: str | None = None
    init: str = "laion_aesthetic_s13b_b82k"
    seed: CountOrZero = 0
    steps: CountOrZero = 80_000
    batch: Count = 4
    accumulate: Count = 1
    lr: Rate = 2e-4
    encoder_lr_factor: RateOrZero = 0.01
    weight_decay: RateOrZero = 1e-4
    grad_clip: Rate = 0.01
    train: Literal["all", "heads"] = "all"
    freeze: tuple[NetworkPart, ...] = ()
    guidance_gradient: bool = False
    categories: Count | None = None
    vary_categories: bool = True
    crop: Count = 768
    short_side: Count | None = 768
    long_side: Count = 2666
    flip: bool = True
    colour: bool = True
    target_size: Count | None = None
    text_steps: CountOrZero = 0
    text_batch: Count = 64
    text_lr: Rate = 1e-3
    clip_steps: CountOrZero = 0
    clip_batch: Annotated[int, Meta(gt=0, multiple_of=CROPS_PER_SCENE)] = 64
    # Crops of half the size are used too, and the trunk needs a multiple of 32.
    clip_size: Annotated[int, Meta(gt=0, multiple_of=64)] = 128
    clip_lr: Rate = 2e-3
    mixed_precision: Literal["no", "fp16", "bf16"] = "no"
    checkpointing: bool = False
    workers: CountOrZero = 4
    log_every: Count = 20
    picture_every: Count = 1000
    save_every: Count = 500
    keep: Count = 2
    half: bool = False


TYPES: dict[str, Any] = {field.name: field.type for field in msgspec.structs.fields(TrainConfig)}

SED_TINY: Mapping[str, Any] = {
    "data": "scenes",
    "init": RANDOM,
    "steps": 5000,
    "lr": 1e-3,
    "encoder_lr_factor": 1.0,
    # Its encoder has seen scenes for minutes, not images for weeks: it has much to learn from the guidance.
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
    """The settings of a preset: for sed-b and sed-l the published ones, for sed-tiny ones for two CPU cores.

    Args:
        preset: name of the network's preset.
        changes: settings that differ. Weights to start from (`init`) replace the pre-training, unless its
            steps are given too. On scenes, sed-b and sed-l see as many categories as COCO-Stuff has, unless
            these are given.

    Raises:
        InputError: the preset or a setting is unknown, a value has another type or is out of range, or two
            settings contradict each other.
    """
    side = 32 * preset_named(preset).attention_pool
    settings = {"preset": preset, **RECIPES[preset]}
    if changes.get("data") == "scenes" and preset != "sed-tiny":
        settings |= SCENES
    if changes.get("init", RANDOM) != RANDOM:
        settings |= {"text_steps": 0, "clip_steps": 0}
    config = TrainConfig(**checked_settings(settings | changes))
    if config.crop % side:
        raise InputError(f"crop is {config.crop}; {preset} needs a multiple of {side}")
    if config.target_size is not None and config.crop % config.target_size:
        raise InputError(f"target_size is {config.target_size}; it must divide crop, which is {config.crop}")
    return config


def read_settings(path: Path) -> dict[str, Any]:
    """The settings of a YAML file.

    Raises:
        InputError: the file is missing or no YAML mapping, or a setting is unknown, of another type or out of
            range.
    """
    if not is_file(path):
        raise InputError(f"{path}: no such file; give a YAML file of settings, such as a run's config.yaml")
    try:
        text = path.read_text(encoding="utf-8")
        content, as_written = yaml.safe_load(text), yaml.load(text, yaml.BaseLoader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise InputError(
            f"{path}: cannot be read as YAML ({reason}); write one `name: value` a line"
        ) from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise InputError(f"{path}: holds a {type(content).__name__}; write one `name: value` a line")
    return checked_settings(content, as_written, f"{path}: ")


def parse_settings(texts: Iterable[str]) -> dict[str, Any]:
    """The settings of texts such as "lr=1e-4" or "freeze=[res2, res3]"; values are YAML.

    Raises:
        InputError: a text has no "=", or a setting is unknown, of another type or out of range.
    """
    values: dict[str, Any] = {}
    as_written: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        name = name.strip()
        if not equals:
            raise InputError(f"--set: {text!r} has no '='; write name=value")
        try:
            values[name], as_written[name] = yaml.safe_load(value), yaml.load(value, yaml.BaseLoader)
        except yaml.YAMLError as error:
            raise InputError(f"--set: the value of {text!r} is not YAML; quote it") from error
    return checked_settings(values, as_written, "--set: ")


def write_settings(config: TrainConfig, path: Path) -> None:
    """Write every setting as YAML, which `read_settings` reads.

    Raises:
        InputError: the file cannot be written.
    """
    with replacing(path) as temporary:
        temporary.write_bytes(msgspec.yaml.encode(config))


def checked_settings(
    values: Mapping[Any, Any], as_written: Mapping[str, Any] | None = None, source: str = ""
) -> dict[str, Any]:
    """`values` with the types of `TrainConfig`'s fields.

    Args:
        values: by the names of settings.
        as_written: the same with every scalar as the text that stands in the YAML; None where there is none.
        source: what messages begin with.

    Raises:
        InputError: a name is unknown, or a value has another type or is out of range.
    """
    checked = {}
    for name, value in values.items():
        if name not in TYPES:
            raise InputError(f"{source}{name!r} is no setting; choose from {', '.join(TYPES)}")
        try:
            checked[name] = _convert(value, (as_written or {}).get(name, value), TYPES[name])
        except msgspec.ValidationError as error:
            expected = _expected(inspect.type_info(TYPES[name]))
            raise InputError(f"{source}{name} is {value!r}; expected {expected}") from error
    return checked


def _convert(value: Any, as_written: Any, wanted: Any) -> Any:
    """A value of YAML as the type `wanted`.

    Raises:
        msgspec.ValidationError: it has another type or is out of range.
    """
    if isinstance(value, str) and isinstance(inspect.type_info(wanted), inspect.VarTupleType):
        value = [value]
    try:
        # YAML takes 1e-4, which has no point, for a text.
        return msgspec.convert(value, wanted, strict=not isinstance(value, str))
    except msgspec.ValidationError:
        # It takes `no` and 2017, where texts are wanted, for something else.
        if value is None or not isinstance(as_written, str):
            raise
        return msgspec.convert(as_written, wanted)


def _expected(info: inspect.Type) -> str:
    """What messages call a type."""
    match info:
        case inspect.UnionType():
            return " or ".join(_expected(each) for each in info.types)
        case inspect.LiteralType():
            return f"one of {', '.join(map(str, info.values))}"
        case inspect.VarTupleType():
            return f"a list, each {_expected(info.item_type)}"
        case inspect.IntType() | inspect.FloatType():
            text = "a whole number" if isinstance(info, inspect.IntType) else "a number"
            text += " above 0" if info.gt == 0 else " of 0 or more"
            return text if info.multiple_of is None else f"{text}, a multiple of {info.multiple_of}"
        case inspect.BoolType():
            return "true or false"
    return "null" if isinstance(info, inspect.NoneType) else "a text"
