"""The parts of training, and a run of a few steps."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from sed_trt.model import SED, Output, preset_named
from sed_trt.train.checkpoint import RunFolder
from sed_trt.train.config import read_settings, recipe
from sed_trt.train.init import initialise
from sed_trt.train.loop import segmentation_loss
from sed_trt.train.pretrain import (
    CaptionedCrops,
    caption_crops,
    contrast,
    pretrain_text,
    same_content,
    text_optimizer,
)
from sed_trt.train.run import train
from sed_trt.train.samples import ABSENT, CategorySampler, TrainedNames, plain_names, scene_names
from sed_trt.train.scenes import COLOURS, HELD_OUT, STUFF, THINGS, VOCABULARY, longer_vocabulary, make_scene

FEW = recipe(
    "sed-tiny",
    text_steps=2,
    text_batch=8,
    clip_steps=2,
    clip_batch=8,
    clip_size=64,
    steps=2,
    batch=2,
    categories=8,
    workers=0,
    log_every=1,
)


def test_loss_is_the_published_one(generator: torch.Generator) -> None:
    maps = [torch.randn(2, 3, side, side, generator=generator) for side in (16, 2, 4, 8)]
    targets = torch.randint(0, 3, (2, 16, 16), generator=generator)
    targets[0, :3] = -1
    one_hot = torch.stack([(targets == category).float() for category in range(3)], 1)
    expected = []
    for each in maps:
        sized = F.interpolate(each, size=(16, 16), mode="bilinear", align_corners=False)
        probability = torch.sigmoid(sized)
        entropy = -(one_hot * probability.log() + (1 - one_hot) * (1 - probability).log())
        expected.append(entropy.mean().item())
    output = Output(maps[0], (maps[1], maps[2], maps[3]))
    assert segmentation_loss(output, targets).item() == pytest.approx(sum(expected), rel=1e-5)
    aux = segmentation_loss(output, targets, last_head=False)
    assert aux.item() == pytest.approx(sum(expected[1:]), rel=1e-5)


def test_layer_scale_of_the_decoder_starts_at_one() -> None:
    with torch.device("meta"):
        names = {name for name, _ in SED(preset_named("sed-b")).named_parameters()}
    scales = {f"decoder.decoder{number}.cnext.gamma" for number in (1, 2, 3)}
    assert scales <= names
    fresh = dict(SED(preset_named("sed-tiny")).named_parameters())
    assert all((fresh[name] == 1).all() for name in scales)


def test_aux_heads_do_not_shape_the_features(tiny_model: SED) -> None:
    text = F.normalize(torch.ones(2, len(tiny_model.templates), tiny_model.preset.embed_dim), dim=-1)
    output = tiny_model(torch.zeros(1, 16, 16, 3, dtype=torch.uint8), text)
    output.aux[0].sum().backward()
    assert tiny_model.decoder.head0.weight.grad is not None
    assert tiny_model.decoder.conv1.weight.grad is None
    tiny_model.zero_grad()


def test_sampler_keeps_what_is_present_and_never_shows_a_held_out_pair() -> None:
    sampler = CategorySampler(scene_names(), 20, seed=0)
    every = np.array(sampler.trained.names)
    assert not set(every) & set(HELD_OUT)
    assert set(ABSENT) <= set(every)
    for seed in range(10):
        labels = make_scene(seed, 64).labels.astype(np.int32)
        labels[0, 0] = -1
        chosen, targets = sampler.draw(labels, step=0, number=seed)
        assert chosen is not None and targets.shape == labels.shape
        names = every[chosen]
        assert len(set(names)) == len(names)
        assert targets[0, 0] == -1
        known = targets >= 0
        assert known.sum() == known.size - 1
        assert (names[targets[known]] == np.array(VOCABULARY)[labels[known]]).all()


def test_samples_of_a_step_get_as_many_categories_and_steps_differ() -> None:
    sampler, labels = CategorySampler(scene_names(), 20, seed=0), np.zeros((2, 2), dtype=np.int32)

    def count(step: int, number: int) -> int:
        chosen, _ = sampler.draw(labels, step, number)
        assert chosen is not None
        return len(chosen)

    counts = {count(step, 4 * step) for step in range(60)}
    assert min(counts) >= 10 and max(counts) <= 30 and len(counts) > 10
    assert {count(7, number) for number in range(28, 32)} == {count(7, 0)}


def test_number_of_categories_stays_where_it_is_to() -> None:
    sampler = CategorySampler(scene_names(), 171, seed=0, vary=False)
    labels = make_scene(0, 64).labels.astype(np.int32)
    draws = [sampler.draw(labels, step, step) for step in range(3)]
    assert all(chosen is not None and len(chosen) == 171 for chosen, _ in draws)
    few, _ = CategorySampler(plain_names("abc"), 4, seed=0, vary=False).draw(np.zeros((2, 2), int), 0, 0)
    assert few is not None and len(few) == 3


def test_sampler_depends_on_seed_and_number_alone() -> None:
    labels = make_scene(0, 64).labels.astype(np.int32)

    def chosen(seed: int, number: int) -> list[int]:
        found, _ = CategorySampler(scene_names(), 20, seed).draw(labels, 3, number)
        assert found is not None
        return found.tolist()

    assert chosen(0, 12) == chosen(0, 12)
    assert chosen(0, 12) != chosen(0, 13) and chosen(0, 12) != chosen(1, 12)


def test_what_does_not_fit_among_the_categories_has_none() -> None:
    labels = np.arange(12).reshape(3, 4)
    chosen, targets = CategorySampler(plain_names("abcdefghijkl"), 4, seed=0).draw(labels, 0, 0)
    assert chosen is not None and len(set(chosen)) == len(chosen) < 12
    inside = targets >= 0
    assert sorted(chosen[targets[inside]]) == sorted(labels[inside]) == sorted(chosen)


def test_all_categories_are_the_names_of_the_data_set() -> None:
    labels = np.array([[2, -1], [0, 1]])
    chosen, targets = CategorySampler(plain_names("abc"), None, seed=0).draw(labels, 0, 0)
    assert chosen is None and targets.tolist() == labels.tolist()
    swapped = TrainedNames(("b", "a"), np.array([1, 0, -1]))
    assert CategorySampler(swapped, None, seed=0).draw(labels, 0, 0)[1].tolist() == [[-1, -1], [1, 0]]


def test_captioned_crops_are_reproducible() -> None:
    images, tokens, content = CaptionedCrops(4, 3, 64, 40, seed=0)[1]
    assert images.shape == (3, 64, 64, 3) and tokens.shape == (3, 40)
    assert content.shape == (3, len(VOCABULARY))
    assert torch.equal(images, CaptionedCrops(4, 3, 64, 40, seed=0)[1][0])
    assert not torch.equal(images, CaptionedCrops(4, 3, 64, 40, seed=1)[1][0])


def test_captions_tell_what_the_crop_shows_and_no_held_out_pair() -> None:
    named = set()
    for seed in range(40):
        for crop in caption_crops(seed, 4, 64):
            names = [VOCABULARY[label] for label in crop.names]
            assert crop.image.shape == (64, 64, 3)
            # Stuff may be left out of a caption, things are not.
            assert names and all(name in crop.caption for name in names if name not in STUFF)
            assert any(name in crop.caption for name in names)
            assert not any(name in crop.caption for name in HELD_OUT)
            named.update(names)
    assert len(named) > 60


def test_contrast_shares_the_target_among_captions_that_fit(generator: torch.Generator) -> None:
    content = torch.tensor([[1, 0], [1, 0], [0, 1]], dtype=torch.bool)
    same = same_content(content)
    assert same.tolist() == [[True, True, False], [True, True, False], [False, False, True]]
    similarity = torch.randn(3, 3, generator=generator)
    logs = similarity.log_softmax(1)
    expected = -((logs[0, 0] + logs[0, 1]) / 2 + (logs[1, 0] + logs[1, 1]) / 2 + logs[2, 2]) / 3
    assert contrast(similarity, same).item() == pytest.approx(expected.item())


def test_text_pretraining_tells_names_apart_and_composes_them() -> None:
    torch.manual_seed(0)
    model = SED(preset_named("sed-tiny"))
    initialise(model)
    config = recipe("sed-tiny", text_steps=120, text_batch=32)
    losses = [each["loss"] for each in pretrain_text(model, config, text_optimizer(model, config))]
    assert losses[-1] < losses[0] / 3
    pairs = [f"{colour} {thing}" for colour in COLOURS for thing in THINGS]
    text = F.normalize(model.eval().encode_vocabulary(pairs).mean(1), dim=-1)
    cosine = (text @ text.T)[[pairs.index(name) for name in HELD_OUT]]
    shared = torch.tensor([[len({*one.split()} & {*other.split()}) for other in pairs] for one in HELD_OUT])
    assert cosine[shared == 1].mean() > cosine[shared == 0].mean() + 0.2


def test_tested_vocabularies_hold_no_absent_name_of_training() -> None:
    assert not set(ABSENT) & set(longer_vocabulary(847))
    assert len(ABSENT) > 300


def test_short_run_trains_what_it_should(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "deep" / "run")
    trained = SED.from_checkpoint(train(FEW, run.path, gpus=0)).state_dict()
    before = SED.from_checkpoint(run.clip).state_dict()
    moved = {name for name, value in trained.items() if not torch.equal(value, before[name].half().float())}
    assert any(name.startswith("decoder.") for name in moved)
    assert any(name.startswith("clip.visual.") for name in moved)
    # The text tower is frozen while SED trains.
    assert not any(name.startswith("clip.") and not name.startswith("clip.visual.") for name in moved)
    lines = [json.loads(line) for line in run.log.read_text().splitlines()]
    assert [line["phase"] for line in lines] == ["text", "text", "clip", "clip", "step", "step"]
    assert all(np.isfinite(line["loss"]) for line in lines)
    assert recipe(**read_settings(run.settings)) == FEW
