"""The reformulations, each against the plain way of computing the same thing."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sed_trt.export.fusions import (
    FusedUp,
    PixelShuffle,
    StageBlock,
    as_pixel_shuffle,
    elu_plus_one,
    elu_plus_one_by_cases,
)
from sed_trt.model.decoder import (
    HEADS,
    ClassAttention,
    CostMap,
    Decoder,
    DecoderStage,
    GuidedConv,
    Head,
    LinearAttention,
)
from sed_trt.model.labels import LOWEST, label_map, survivors, vote_table
from sed_trt.model.presets import SED_B
from sed_trt.model.scout import Fold, FoldedScout, Scout

EXACT = 1e-5


@pytest.mark.parametrize("side", [3, 8, 11])
def test_scout_is_head0_of_conv1(side: int, generator: torch.Generator) -> None:
    conv1, head0 = nn.Conv2d(20, 128, 7, padding=3), Head(128)
    cost = torch.randn(6, 20, side, side, generator=generator)
    plain = head0(conv1(cost)).squeeze(1)
    # Borders included: that is where a bias under zero padding would show.
    assert (plain - Scout(conv1, head0, side)(cost)).abs().max() < EXACT


@pytest.mark.parametrize("side", [1, 3, 8, 11])
def test_folded_scout_is_head0_of_conv1_of_the_cost_map(side: int, generator: torch.Generator) -> None:
    conv1, head0 = nn.Conv2d(20, 128, 7, padding=3), Head(128)
    text = F.normalize(torch.randn(6, 20, 16, generator=generator), dim=-1)
    unit = F.normalize(torch.randn(1, 16, side, side, generator=generator), dim=1)
    plain = head0(conv1(CostMap()(unit, text))).squeeze(1)
    folded = FoldedScout(conv1, head0, side)(unit, *Fold(conv1, head0)(text))
    assert (plain - folded).abs().max() < EXACT


@pytest.mark.parametrize(("size", "padding", "bias"), [(2, 0, True), (4, 1, False)])
def test_pixel_shuffle_is_the_transposed_convolution(
    size: int, padding: int, bias: bool, generator: torch.Generator
) -> None:
    layer = nn.ConvTranspose2d(6, 5, size, stride=2, padding=padding, bias=bias)
    x = torch.randn(3, 6, 4, 7, generator=generator)
    assert (layer(x) - as_pixel_shuffle(layer)(x)).abs().max() < EXACT


def test_pixel_shuffle_by_moves_of_axes(generator: torch.Generator) -> None:
    x = torch.randn(3, 20, 4, 7, generator=generator)
    assert torch.equal(PixelShuffle()(x), nn.PixelShuffle(2)(x))


def test_elu_plus_one_by_cases(generator: torch.Generator) -> None:
    x = torch.cat(
        [torch.tensor([0.0, -0.0, 1e-30, -1e-30, 90.0, -90.0]), torch.randn(1000, generator=generator)]
    )
    by_cases = elu_plus_one_by_cases(x)
    # Rounding apart, which elu does twice below zero.
    assert (by_cases - elu_plus_one(x)).abs().max() < 1.2e-7
    assert torch.equal(by_cases[x > 0], elu_plus_one(x)[x > 0])
    assert (by_cases > 0).all()


@pytest.mark.parametrize("images_side", [1, 6])
def test_fused_up_is_the_two_convolutions(images_side: int, generator: torch.Generator) -> None:
    stage = DecoderStage(width=32, guidance=8, out=16, pool=1)
    x = torch.randn(4, 32, images_side, images_side, generator=generator)
    image = torch.randn(1, 8, 2 * images_side, 2 * images_side, generator=generator)
    cost = torch.randn(4, 8, 2 * images_side, 2 * images_side, generator=generator)
    fused = FusedUp(stage, images_side)(x, image, cost)
    assert (stage.conv(stage.up(x), image, cost) - fused).abs().max() < EXACT


def test_stage_block_is_block_and_attention(generator: torch.Generator) -> None:
    stage = DecoderStage(width=32, guidance=8, out=16, pool=1)
    assert stage.cnext.gamma is not None
    with torch.no_grad():
        # Ones would not show where the scale is applied.
        stage.cnext.gamma.copy_(torch.rand(32, generator=generator))
    x = torch.randn(5, 32, 6, 7, generator=generator)
    plain = stage.attention(stage.cnext(x), images=1)
    assert (plain - StageBlock(stage)(x, torch.ones(5, dtype=torch.bool))).abs().max() < EXACT


def test_cost_guidance_after_the_gather_is_the_gather_of_cost_guidance(generator: torch.Generator) -> None:
    decoder = Decoder(SED_B, prompts=80)
    cost = torch.randn(7, 80, 5, 5, generator=generator)
    first, second = torch.tensor([0, 2, 3, 6]), torch.tensor([1, 3])
    one, two, three = decoder.decoder_corr_guidance_projection
    plain = three(two(one(cost)))[first][second]
    late = three(two(one(cost[first])[second]))
    assert (plain - late).abs().max() < EXACT


@pytest.mark.parametrize("images", [1, 2])
def test_shared_image_guidance_is_the_concatenation(images: int, generator: torch.Generator) -> None:
    conv = GuidedConv(features=24, guidance=8, out=16)
    x = torch.randn(images * 3, 24, 6, 7, generator=generator)
    cost = torch.randn(images * 3, 8, 6, 7, generator=generator)
    image = torch.randn(images, 8, 6, 7, generator=generator)
    plain = conv.double_conv(torch.cat([x, image.repeat_interleave(3, 0), cost], 1))
    assert (plain - conv(x, image, cost)).abs().max() < EXACT


def test_attention_is_the_einsum_formulation(generator: torch.Generator) -> None:
    layer = LinearAttention(32)
    tokens = torch.randn(2, 5, 9, 32, generator=generator)
    assert (einsum_attention(layer, tokens) - layer(tokens)).abs().max() < EXACT


def einsum_attention(layer: LinearAttention, tokens: Tensor) -> Tensor:
    """Linear attention as its authors write it, one sequence of categories per pixel."""
    batch, pixels, length, width = tokens.shape
    shape = (batch * pixels, length, HEADS, width // HEADS)
    query = F.elu(layer.q(tokens)).reshape(shape) + 1
    key = F.elu(layer.k(tokens)).reshape(shape) + 1
    value = layer.v(tokens).reshape(shape) / length
    summary = torch.einsum("nshd,nshv->nhdv", key, value)
    norm = 1 / (torch.einsum("nlhd,nhd->nlh", query, key.sum(1)) + 1e-6)
    out = torch.einsum("nlhd,nhdv,nlh->nlhv", query, summary, norm) * length
    return out.reshape(tokens.shape)


def test_class_attention_adds_its_input_twice(generator: torch.Generator) -> None:
    layer = ClassAttention(16, pool=2).eval()
    for module in (layer.attention.v, layer.MLP[2]):
        for parameter in module.parameters():
            nn.init.zeros_(parameter)
    x = torch.randn(3, 16, 4, 4, generator=generator)
    assert torch.equal(layer(x, images=1), 2 * x)


def test_class_attention_pools_in_training_only(generator: torch.Generator) -> None:
    layer = ClassAttention(16, pool=2)
    x = torch.randn(3, 16, 4, 4, generator=generator)
    trained, tested = layer.train()(x, images=1), layer.eval()(x, images=1)
    assert trained.shape == tested.shape
    assert (trained - tested).abs().max() > 1e-2


def test_cost_map_is_the_cosine(generator: torch.Generator) -> None:
    embed = torch.randn(2, 16, 3, 4, generator=generator)
    text = F.normalize(torch.randn(5, 6, 16, generator=generator), dim=-1)
    plain = torch.einsum("bchw,tpc->btphw", F.normalize(embed, dim=1), text).flatten(0, 1)
    assert (plain - CostMap()(embed, text)).abs().max() < EXACT


def test_attention_to_the_living_is_attention_among_them(generator: torch.Generator) -> None:
    block = StageBlock(DecoderStage(width=32, guidance=8, out=16, pool=1))
    x = torch.randn(9, 32, 4, 4, generator=generator)
    alive = torch.arange(9) < 6
    among_all = block(x, alive)[:6]
    assert (block(x[:6], alive[:6]) - among_all).abs().max() < EXACT
    assert (block(x, torch.ones_like(alive))[:6] - among_all).abs().max() > 1e-3


@pytest.mark.parametrize("living", [1, 3, 8, 20])
def test_padding_gets_no_votes(living: int, generator: torch.Generator) -> None:
    logits = torch.randn(living, 6, 5, generator=generator)
    padded = torch.cat([logits, torch.full((12, 6, 5), LOWEST)])
    votes = vote_table(padded, torch.arange(living + 12) < living)
    assert torch.equal(votes[:, :living], vote_table(logits))
    assert not votes[:, living:].any()


@pytest.mark.parametrize("categories", [1, 3, 8, 9, 40])
def test_votes_count_the_ranks(categories: int, generator: torch.Generator) -> None:
    logits = torch.randn(categories, 6, 5, generator=generator)
    votes = vote_table(logits)
    order = logits.flatten(1).argsort(0, descending=True)
    for rank in range(8):
        held = order[rank] if rank < categories else torch.empty(0, dtype=torch.int64)
        assert votes[rank].tolist() == torch.bincount(held, minlength=categories).tolist()


def test_votes_give_a_tied_rank_to_one_category() -> None:
    assert vote_table(torch.zeros(12, 2, 2)).sum(1).tolist() == [4] * 8


def test_survivors_are_the_union_over_pixels(generator: torch.Generator) -> None:
    logits = torch.randn(30, 3, 3, generator=generator)
    for k in (1, 2, 8):
        expected = sorted(set(logits.topk(k, dim=0).indices.flatten().tolist()))
        assert survivors(vote_table(logits), k).tolist() == expected


@pytest.mark.parametrize(("height", "width"), [(1, 1), (7, 50), (90, 31), (16, 16)])
def test_label_map_is_interpolate_and_argmax(height: int, width: int, generator: torch.Generator) -> None:
    logits = torch.randn(5, 16, 16, generator=generator)
    kept = torch.tensor([2, 3, 5, 7, 11])
    sized = F.interpolate(torch.sigmoid(logits).unsqueeze(0), size=(height, width), mode="bilinear")[0]
    assert (label_map(logits, kept, height, width) == kept[sized.argmax(0)]).float().mean() > 0.999
