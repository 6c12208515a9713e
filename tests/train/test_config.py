"""Recipes, settings from files and texts, and which parameters they let train."""

import copy
from pathlib import Path
from typing import Any, get_args

import pytest

from sed_trt.errors import InputError
from sed_trt.model import SED
from sed_trt.tests.fakes.training_data import small
from sed_trt.train.config import (
    RECIPES,
    NetworkPart,
    TrainConfig,
    parse_settings,
    read_settings,
    recipe,
    write_settings,
)
from sed_trt.train.optim import PREFIXES, is_trained, published_groups, select_trained


def test_defaults_are_the_published_recipe() -> None:
    config = recipe("sed-b")
    assert (config.guidance_gradient, config.freeze, config.train, config.long_side) == (
        False,
        (),
        "all",
        2666,
    )
    assert (config.data, config.short_side, config.crop) == ("coco-stuff", 768, 768)
    assert (config.flip, config.colour, config.categories, config.target_size) == (True, True, None, None)
    assert (config.lr, config.encoder_lr_factor, config.weight_decay) == (2e-4, 0.01, 1e-4)
    assert (config.grad_clip, config.batch, config.steps) == (0.01, 4, 80_000)
    assert (config.init, recipe("sed-l").init) == ("laion_aesthetic_s13b_b82k", "laion2b_s29b_b131k_ft_soup")
    assert config.text_steps == config.clip_steps == 0


def test_sed_tiny_keeps_its_own() -> None:
    config = recipe("sed-tiny")
    assert (config.data, config.init, config.categories, config.target_size) == ("scenes", "random", 28, 64)
    assert (config.text_steps, config.clip_steps, config.steps, config.lr) == (300, 4000, 5000, 1e-3)
    assert not config.colour and not config.flip and config.short_side is None


def test_given_weights_replace_the_pretraining() -> None:
    config = recipe("sed-tiny", init="some.safetensors")
    assert config.text_steps == config.clip_steps == 0
    assert recipe("sed-tiny", init="some.safetensors", clip_steps=5).clip_steps == 5


def test_scenes_take_the_place_of_the_published_data() -> None:
    config = recipe("sed-b", data="scenes")
    assert (config.categories, config.vary_categories, config.crop, config.batch) == (171, False, 768, 4)
    assert recipe("sed-b", data="scenes", categories=40).categories == 40
    assert recipe("sed-tiny", data="scenes") == recipe("sed-tiny")


def test_settings_go_through_yaml_unchanged(tmp_path: Path) -> None:
    for config in (*(recipe(preset) for preset in RECIPES), small("x", freeze=("res2", "heads"), lr=1e-5)):
        path = tmp_path / "config.yaml"
        write_settings(config, path)
        assert TrainConfig(**read_settings(path)) == config


def test_texts_become_values() -> None:
    texts = ["lr=1e-4", "steps=7", "flip=false", "categories=null", "freeze=[res2, res3]", "grad_clip=1"]
    assert parse_settings(texts) == {
        **{"lr": 1e-4, "steps": 7, "flip": False, "categories": None},
        **{"freeze": ("res2", "res3"), "grad_clip": 1.0},
    }
    assert parse_settings(["freeze=encoder"]) == {"freeze": ("encoder",)}


def test_texts_that_yaml_takes_for_something_else_stay_texts(tmp_path: Path) -> None:
    texts = ["mixed_precision=no", "data=2017", "init=1e3", "root=null"]
    wanted = {"mixed_precision": "no", "data": "2017", "init": "1e3", "root": None}
    assert parse_settings(texts) == wanted
    path = tmp_path / "config.yaml"
    path.write_text("".join(text.replace("=", ": ") + "\n" for text in texts))
    assert read_settings(path) == wanted
    assert parse_settings(["data='my data'", "root=on"]) == {"data": "my data", "root": "on"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("stepz=7", "--set: 'stepz' is no setting; choose from preset, data"),
        ("steps=many", "--set: steps is 'many'; expected a whole number of 0 or more$"),
        ("steps=1.5", "--set: steps is 1.5; expected a whole number"),
        ("steps=true", "--set: steps is True; expected a whole number"),
        ("lr=fast", "--set: lr is 'fast'; expected a number above 0$"),
        ("lr=true", "--set: lr is True; expected a number above 0$"),
        ("flip=1", "--set: flip is 1; expected true or false"),
        ("categories=few", "--set: categories is 'few'; expected a whole number above 0 or null"),
        ("categories=-3", "--set: categories is -3; expected a whole number above 0 or null"),
        ("freeze=3", "--set: freeze is 3; expected a list, each one of decoder, encoder"),
        (
            "freeze=[res2, 3]",
            r"--set: freeze is \['res2', 3\]; expected a list, each one of decoder, encoder",
        ),
        ("train=tail", "--set: train is 'tail'; expected one of all, heads"),
        ("data=[a]", r"--set: data is \['a'\]; expected a text"),
        ("data=", "--set: data is None; expected a text"),
        ("steps", "--set: 'steps' has no '='; write name=value"),
        ("steps=[", "--set: the value of 'steps=\\[' is not YAML"),
    ],
)
def test_texts_that_are_no_settings_are_refused(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_settings([text])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("- steps", "holds a list; write one"),
        ("steps: [", "cannot be read as YAML"),
        ("learning_rate: 1", "'learning_rate' is no setting; choose from"),
        ("batch: 4.5", r"config\.yaml: batch is 4\.5; expected a whole number"),
        ("keep: 0", r"config\.yaml: keep is 0; expected a whole number above 0"),
    ],
)
def test_files_that_hold_no_settings_are_refused(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(content)
    with pytest.raises(InputError, match=message):
        read_settings(path)
    with pytest.raises(InputError, match=r"none\.yaml: no such file"):
        read_settings(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch": 0}, "^batch is 0; expected a whole number above 0$"),
        ({"steps": -1}, "^steps is -1; expected a whole number of 0 or more$"),
        ({"weight_decay": -1.0}, "^weight_decay is -1.0; expected a number of 0 or more$"),
        ({"mixed_precision": "fp8"}, "mixed_precision is 'fp8'; expected one of bf16, fp16, no"),
        ({"train": "tail"}, "train is 'tail'; expected one of all, heads"),
        (
            {"freeze": ("backbone",)},
            r"freeze is \('backbone',\); expected a list, each one of decoder, encoder",
        ),
        ({"stepz": 1}, "^'stepz' is no setting; choose from preset, data"),
        ({"crop": 800}, "crop is 800; sed-b needs a multiple of 64"),
        ({"crop": 128, "target_size": 96}, "target_size is 96; it must divide crop, which is 128"),
        ({"clip_batch": 6}, "clip_batch is 6; expected a whole number above 0, a multiple of 4"),
        ({"clip_size": 96}, "clip_size is 96; expected a whole number above 0, a multiple of 64"),
        ({"lr": float("nan")}, "lr is nan; expected a number above 0"),
    ],
)
def test_settings_that_cannot_be_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        recipe("sed-b", **changes)


def test_unknown_presets_are_refused() -> None:
    with pytest.raises(InputError, match="preset 'sed-xl' is not known; choose one of sed-b"):
        recipe("sed-xl")


def test_parts_that_train() -> None:
    names = {
        "stem": "clip.visual.trunk.stem.0.weight",
        "last": "clip.visual.trunk.stages.3.blocks.0.gamma",
        "head1": "decoder.head1.weight",
        "head": "decoder.head.weight",
        "text": "clip.token_embedding.weight",
    }

    def trained(*arguments: Any) -> list[str]:
        return [short for short, name in names.items() if is_trained(name, *arguments)]

    assert trained() == ["stem", "last", "head1", "head"]
    assert trained("all", ["encoder"]) == ["head1", "head"]
    assert trained("all", ["res2", "heads"]) == ["last", "head"]
    assert trained("heads") == ["head1"]
    assert set(PREFIXES) == set(get_args(NetworkPart))


def test_something_must_train(tiny: SED) -> None:
    model = copy.deepcopy(tiny)
    with pytest.raises(InputError, match="train heads with decoder frozen leaves nothing to train"):
        select_trained(model, small("x", train="heads", freeze=("decoder",)))
    trained = select_trained(model, small("x", train="heads", freeze=("encoder",)))
    named = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert named == {f"decoder.head{number}.{kind}" for number in range(3) for kind in ("weight", "bias")}
    assert len(trained) == 6


def test_norms_do_not_decay_and_everything_else_does(tiny: SED) -> None:
    model = copy.deepcopy(tiny).requires_grad_(True)
    groups = published_groups(model.decoder, 1.0, 0.5) + published_groups(model.clip.visual, 0.1, 0.5)
    decay = {id(p): group["weight_decay"] for group in groups for p in group["params"]}  # type: ignore[attr-defined]
    named = dict(model.named_parameters())
    assert len(decay) == sum(name.startswith(("decoder.", "clip.visual.")) for name in named)
    trunk = "clip.visual.trunk."
    for name in ("decoder.decoder1.attention.norm1.weight", f"{trunk}stages.1.blocks.0.norm.bias"):
        assert decay[id(named[name])] == 0
    assert decay[id(named["decoder.decoder2.conv.double_conv.1.weight"])] == 0
    for name in ("decoder.head.bias", f"{trunk}stages.1.blocks.0.gamma", f"{trunk}stem.0.weight"):
        assert decay[id(named[name])] == 0.5
