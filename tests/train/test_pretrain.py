"""Pre-training of CLIP: captioned crops, the contrast, and what the text tower learns."""

import pytest
import torch
import torch.nn.functional as F

from sed_trt.model import SED, preset_named
from sed_trt.train.config import recipe
from sed_trt.train.init import initialise
from sed_trt.train.pretrain import (
    CaptionedCrops,
    caption_crops,
    contrast,
    pretrain_text,
    same_content,
    text_optimizer,
)
from sed_trt.train.scenes import COLOURS, HELD_OUT, STUFF, THINGS, VOCABULARY


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
    config = recipe("sed-tiny", text_steps=60, text_batch=16)
    losses = [each["loss"] for each in pretrain_text(model, config, text_optimizer(model, config))]
    assert losses[-1] < losses[0] / 3
    pairs = [f"{colour} {thing}" for colour in COLOURS for thing in THINGS]
    text = F.normalize(model.eval().encode_vocabulary(pairs).mean(1), dim=-1)
    cosine = (text @ text.T)[[pairs.index(name) for name in HELD_OUT]]
    shared = torch.tensor([[len({*one.split()} & {*other.split()}) for other in pairs] for one in HELD_OUT])
    assert cosine[shared == 1].mean() > cosine[shared == 0].mean() + 0.2
