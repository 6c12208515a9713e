"""The parts of training, and a run of a few steps."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from sed_trt.errors import InputError
from sed_trt.model import SED, Output, preset_named
from sed_trt.train.caption_pretraining import pretrain_text
from sed_trt.train.category_sampling import ABSENT, CategorySampler
from sed_trt.train.clip_pretraining import contrast, same_content
from sed_trt.train.config import TrainConfig
from sed_trt.train.crops import caption_crops
from sed_trt.train.data import CaptionedCrops, LabelledScenes
from sed_trt.train.initialise import initialise
from sed_trt.train.run import train
from sed_trt.train.scenes import (
    COLOURS,
    HELD_OUT,
    STUFF,
    THINGS,
    VOCABULARY,
    longer_vocabulary,
    make_scene,
)
from sed_trt.train.segmentation import segmentation_loss

FEW = TrainConfig(
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
    expected = 0.0
    for each in maps:
        sized = F.interpolate(each, size=(16, 16), mode="bilinear", align_corners=False)
        probability = torch.sigmoid(sized)
        entropy = -(one_hot * probability.log() + (1 - one_hot) * (1 - probability).log())
        expected += entropy.mean().item()
    loss = segmentation_loss(Output(maps[0], (maps[1], maps[2], maps[3])), targets)
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_aux_heads_do_not_shape_the_features(tiny_model: SED) -> None:
    text = F.normalize(torch.ones(2, len(tiny_model.templates), tiny_model.preset.embed_dim), dim=-1)
    output = tiny_model(torch.zeros(1, 16, 16, 3, dtype=torch.uint8), text)
    output.aux[0].sum().backward()
    assert tiny_model.decoder.head0.weight.grad is not None
    assert tiny_model.decoder.conv1.weight.grad is None
    tiny_model.zero_grad()


def test_sampler_keeps_what_is_present_and_never_shows_a_held_out_pair() -> None:
    sampler = CategorySampler(20, seed=0)
    assert not set(sampler.names) & set(HELD_OUT)
    assert set(ABSENT) <= set(sampler.names)
    for seed in range(10):
        labels = np.stack([make_scene(2 * seed + each, 64).labels for each in range(2)])
        chosen, targets = sampler.draw(labels)
        assert chosen.shape[0] == 2 and targets.shape == labels.shape
        for image in range(2):
            names = np.array(sampler.names)[chosen[image]]
            assert len(set(names)) == len(names)
            assert (names[targets[image]] == np.array(VOCABULARY)[labels[image]]).all()


def test_sampler_varies_the_number_of_categories() -> None:
    sampler = CategorySampler(20, seed=0)
    counts = {sampler.draw(np.zeros((1, 2, 2), dtype=np.int64))[0].shape[1] for _ in range(60)}
    assert min(counts) >= 10 and max(counts) <= 30 and len(counts) > 10


def test_sampler_makes_room_for_all_that_is_present() -> None:
    labels = np.arange(12).reshape(1, 3, 4)
    chosen, targets = CategorySampler(4, seed=0).draw(labels)
    assert chosen.shape == (1, 12)
    assert len(set(targets.ravel().tolist())) == 12


def test_data_sets_are_reproducible_and_apart() -> None:
    first, again = (LabelledScenes(4, 64, 32, seed=0)[1] for _ in range(2))
    assert torch.equal(first[0], again[0]) and torch.equal(first[1], again[1])
    assert first[1].shape == (32, 32)
    images, tokens, content = CaptionedCrops(4, 3, 64, 40, seed=0)[1]
    assert (
        images.shape == (3, 64, 64, 3) and tokens.shape == (3, 40) and content.shape == (3, len(VOCABULARY))
    )
    assert torch.equal(images, CaptionedCrops(4, 3, 64, 40, seed=0)[1][0])
    assert not torch.equal(LabelledScenes(4, 64, 32, seed=1)[1][0], first[0])


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
    config = TrainConfig(text_steps=120, text_batch=32)
    losses = [metrics["loss"] for metrics in pretrain_text(model, config)]
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
    output = tmp_path / "deep" / "tiny.safetensors"
    trained = train(FEW, output)
    before = SED.from_checkpoint(output.with_name("tiny.clip.safetensors")).state_dict()
    after = trained.state_dict()
    moved = {name for name, value in after.items() if (value - before[name].half().float()).abs().max() > 0}
    assert any(name.startswith("decoder.") for name in moved)
    assert any(name.startswith("clip.visual.") for name in moved)
    # The text tower is frozen while SED trains.
    assert not any(name.startswith("clip.") and not name.startswith("clip.visual.") for name in moved)
    lines = [json.loads(line) for line in output.with_suffix(".log.jsonl").read_text().splitlines()]
    assert [line.get("phase") for line in lines] == [None, "text", "text", "clip", "clip", "sed", "sed"]
    assert all(np.isfinite(line["loss"]) for line in lines[1:])
    again = train(FEW, tmp_path / "again.safetensors").state_dict()
    assert all(torch.equal(after[name], again[name]) for name in after)


def test_output_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        train(FEW, tmp_path / "file" / "x.safetensors")
    with pytest.raises(InputError, match="is a folder"):
        (tmp_path / "dir.safetensors").mkdir()
        train(FEW, tmp_path / "dir.safetensors")
    with pytest.raises(InputError, match=r"written as \.safetensors"):
        train(FEW, tmp_path / "x.pth")


def test_init_that_is_missing_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        train(FEW, tmp_path / "x.safetensors", init=tmp_path / "none.safetensors")
    assert list(tmp_path.iterdir()) == []
