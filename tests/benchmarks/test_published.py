"""The baseline computes what SED computes, in the published order and at the published cost."""

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from sed_trt.benchmarks.baselines import PublishedSED
from sed_trt.model import SED, preset_named
from sed_trt.train.scenes import VOCABULARY, make_scene

CATEGORIES = 40


@pytest.fixture(scope="module")
def image() -> Tensor:
    """A scene, uint8 (200, 200, 3)."""
    return torch.from_numpy(make_scene(3, 200, split="test").image)


@pytest.fixture(scope="module")
def text(tiny_model: SED) -> Tensor:
    """Embeddings of a few names."""
    return tiny_model.encode_vocabulary(VOCABULARY[:CATEGORIES])


@pytest.mark.parametrize("k", [1, 2, 8])
@torch.no_grad()
def test_logits_are_those_of_reject(tiny_model: SED, image: Tensor, text: Tensor, k: int) -> None:
    embed, images = tiny_model.encode_images(image[None])
    logits, kept, counts = PublishedSED(tiny_model).decode(embed, images, text, k)
    ours = tiny_model.reject(image, text, k)
    assert counts == tuple(len(each) for each in ours.survivors)
    assert torch.equal(kept, ours.kept)
    assert (logits - ours.logits).abs().max() < 1e-4


@pytest.mark.parametrize("k", [1, 8])
def test_labels_are_those_of_segment(tiny_model: SED, image: Tensor, text: Tensor, k: int) -> None:
    labels, _ = PublishedSED(tiny_model).segment(image, text, k)
    assert (labels == tiny_model.segment(image, text, k)).float().mean() > 0.999


@torch.no_grad()
def test_forced_sets_take_the_place_of_its_own(tiny_model: SED, image: Tensor, text: Tensor) -> None:
    forced = [torch.arange(20), torch.arange(3, 13), torch.tensor([0, 4])]
    embed, images = tiny_model.encode_images(image[None])
    _, kept, counts = PublishedSED(tiny_model).decode(embed, images, text, forced=forced)
    assert kept.tolist() == [3, 7]
    assert counts == (20, 10, 2)


def test_all_categories_pay_before_any_is_rejected(tiny_model: SED, image: Tensor, text: Tensor) -> None:
    decoder = tiny_model.decoder
    watched: dict[str, nn.Module] = {
        "conv1": decoder.conv1,
        "head0": decoder.head0,
        "cost1": decoder.decoder_corr_guidance_projection[0],
        "cost2": decoder.decoder_corr_guidance_projection[1],
        "cost3": decoder.decoder_corr_guidance_projection[2],
        "block1": decoder.decoder1.cnext,
        "conv of 1": decoder.decoder1.conv.double_conv,
        "block2": decoder.decoder2.cnext,
        "block3": decoder.decoder3.cnext,
    }
    calls: list[tuple[str, tuple[int, ...]]] = []
    hooks = [
        module.register_forward_pre_hook(
            lambda _module, inputs, name=name: calls.append((name, tuple(inputs[0].shape[:2])))
        )
        for name, module in watched.items()
    ]
    forced = [torch.arange(12), torch.arange(7), torch.arange(5)]
    try:
        PublishedSED(tiny_model).segment(image, text, forced=forced)
    finally:
        for hook in hooks:
            hook.remove()
    widths, guide = tiny_model.preset.decoder_widths, tiny_model.preset.guidance_widths
    assert calls == [
        ("conv1", (CATEGORIES, len(tiny_model.templates))),
        ("head0", (CATEGORIES, widths[0])),
        ("cost1", (CATEGORIES, len(tiny_model.templates))),
        ("cost2", (CATEGORIES, guide[0])),
        ("cost3", (CATEGORIES, guide[1])),
        ("block1", (12, widths[0])),
        # Features, repeated image guidance and cost guidance, concatenated.
        ("conv of 1", (12, widths[0] + guide[0])),
        ("block2", (7, widths[1])),
        ("block3", (5, widths[2])),
    ]


@torch.no_grad()
def test_cost_per_category_is_what_the_reference_says() -> None:
    """GFLOP of sed-b's parts from reference/PERFORMANCE.md: 1.68, 0.58 of it the 7x7, then 1.06 and 1.09."""
    preset = preset_named("sed-b")
    side, few = preset.grid, 2
    # Shapes alone are counted.
    with torch.device("meta"):
        network = PublishedSED(SED(preset).eval())
        text = torch.empty(few, 80, preset.embed_dim)
        images = [
            torch.empty(1, width, side * up, side * up)
            for width, up in zip(preset.guidance_widths, (2, 4, 8), strict=True)
        ]
        embed = torch.empty(1, preset.embed_dim, side, side)
    with FlopCounterMode(display=False) as scouting:
        cost, x, _ = network.scout(embed, text)
    costs = network.cost_guidance(cost)
    # The convolution and head0, which the cost map's product joins.
    parts = [scouting.get_total_flops()]
    for index in range(3):
        with FlopCounterMode(display=False) as decoding:
            x, _ = network.stage(index, x, images[index], costs[index])
        parts.append(decoding.get_total_flops())
    scout, first, second, third = (part / few / 1e9 for part in parts)
    # What the guidance of each stage adds: a transposed convolution from its width at half its side.
    guidance = [
        8 * before * width * (side * up) ** 2 / 1e9
        for before, width, up in ((80, 32, 1), (32, 16, 2), (16, 8, 4))
    ]
    assert 2 * 80 * 128 * 49 * side**2 / 1e9 == pytest.approx(0.58, abs=0.005)
    assert scout + first + guidance[0] == pytest.approx(1.68, abs=0.01)
    assert second + guidance[1] == pytest.approx(1.06, abs=0.01)
    assert third + guidance[2] == pytest.approx(1.09, abs=0.01)
