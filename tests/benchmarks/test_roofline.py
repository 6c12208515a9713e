"""The closed formulas are what a counter finds, and floors follow from them."""

import json
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from sed_trt.benchmarks.baselines import PublishedSED
from sed_trt.benchmarks.speed.candidates import OURS
from sed_trt.benchmarks.speed.costs import StageCost, decode_cost, image_cost, stage_costs
from sed_trt.benchmarks.speed.roofline import GPUS, GpuPeak, floor, roofline
from sed_trt.cli.main import main
from sed_trt.export.stages import graph_specs
from sed_trt.model import SED, preset_named

PRESETS = ("sed-tiny", "sed-b", "sed-l")
CATEGORIES = 7
DECODERS = ("decode1", "decode2", "decode3")


def counted(work: Callable[[], object]) -> int:
    """FLOPs of `work`."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        work()
    return int(counter.get_total_flops())


@pytest.fixture(scope="module", params=PRESETS)
def model(request: pytest.FixtureRequest) -> SED:
    """A network without weights: shapes alone are counted."""
    with torch.device("meta"):
        return SED(preset_named(request.param)).eval()


def features(model: SED, stage: int, kept: int) -> Tensor:
    """Features before a decoder stage."""
    side = model.preset.grid << stage
    return torch.empty(kept, model.preset.decoder_widths[stage], side, side, device="meta")


def guidance(model: SED, stage: int, kept: int) -> Tensor:
    """Guidance of a decoder stage, of the image or of categories."""
    side = model.preset.grid << (stage + 1)
    return torch.empty(kept, model.preset.guidance_widths[stage], side, side, device="meta")


def test_the_image_stage_and_the_published_steps(model: SED) -> None:
    preset, network = model.preset, PublishedSED(model)
    costs = {cost.stage: cost.flops for cost in stage_costs(preset, CATEGORIES, (5, 4, 3), "published")}
    pixels = torch.empty(1, 3, preset.image_size, preset.image_size, device="meta")
    embed = torch.empty(1, preset.embed_dim, preset.grid, preset.grid, device="meta")
    text = torch.empty(CATEGORIES, len(model.templates), preset.embed_dim, device="meta")
    cost = torch.empty(CATEGORIES, len(model.templates), preset.grid, preset.grid, device="meta")
    assert costs["image"] == counted(lambda: network.image(pixels))
    assert costs["scout"] == counted(lambda: network.scout(embed, text))
    assert costs["guidance"] == counted(lambda: network.cost_guidance(cost))
    for index, kept in enumerate((5, 4, 3)):
        inputs = features(model, index, kept), guidance(model, index, 1), guidance(model, index, kept)
        assert costs[f"decode{index + 1}"] == counted(lambda: network.stage(index, *inputs))  # noqa: B023


def test_our_stages(model: SED) -> None:
    preset = model.preset
    specs = {spec.name: spec for spec in graph_specs(model) if spec.name in ("scout", *DECODERS)}
    # The examples that the graphs are traced with: five categories, of which four, three and two are kept.
    costs = {cost.stage: cost.flops for cost in stage_costs(preset, 5, (4, 3, 2))}
    for name, spec in specs.items():
        inputs = [value.to("meta") for value in spec.inputs.values()]
        assert costs[name] == counted(lambda: spec.module.to("meta")(*inputs)), name  # noqa: B023


def test_figures_of_the_reference() -> None:
    """GFLOP from reference/PERFORMANCE.md."""
    preset = preset_named("sed-b")
    assert image_cost(preset).flops / 1e9 == pytest.approx(364, rel=0.005)
    ours = [decode_cost(preset, index, 1000, "staged").flops / 1e12 for index in range(3)]
    # Those have the attention head by head, ours all heads in one product.
    assert ours == pytest.approx([1.44, 0.81, 0.84], rel=0.07)


def test_traffic_counts_each_value_once() -> None:
    """sed-tiny's third stage: 16 channels at 32, guidance 8 at 32 and 4 at 64, logits at 64."""
    cost = decode_cost(preset_named("sed-tiny"), 2, 3, "staged")
    weights = 16 * 81 + 2 * 16 * 64 + 3 * 16 * 16 + 2 * 16 * 64
    weights += 8 * 4 * 4 + 2 * 4 * 8 * 9 + 16 * 8 * 16 + 8 * 8 * 9 + 8 * 9
    inputs = 3 * (16 + 8) * 32**2 + 4 * 64**2
    assert cost.minimum == weights + inputs + 3 * 64**2
    assert cost.fused == cost.minimum + 3 * (3 * 16 * 32**2 + 4 * 8 * 64**2)


def test_rejection_is_worth_what_it_drops() -> None:
    preset = preset_named("sed-b")
    whole = {cost.stage: cost.flops for cost in stage_costs(preset, 847, (847, 847, 847))}
    few = {cost.stage: cost.flops for cost in stage_costs(preset, 847, (32, 32, 32))}
    assert whole["scout"] == few["scout"] and whole["image"] == few["image"]
    assert whole["decode3"] / few["decode3"] == pytest.approx(847 / 32, rel=0.01)


def test_a_floor_is_the_slower_of_arithmetic_and_traffic() -> None:
    gpu = GpuPeak("one", fp16_tflops=1.0, fp32_tflops=0.5, bandwidth=1.0)
    busy = StageCost("s", flops=3 * 10**9, minimum=10**6, fused=4 * 10**6)
    assert floor(busy, gpu, "fp16") == pytest.approx((3.0, 8.0))
    assert floor(busy, gpu, "fp32") == pytest.approx((6.0, 16.0))


def test_the_a6000_row_says_what_was_not_measured() -> None:
    preset = preset_named("sed-b")
    rows = roofline(preset, 150, (32, 32, 32), "fp16", ["a6000"])["results"]
    assert [row["kind"] for row in rows] == ["predicted"] * 2 + ["the paper's, PyTorch", "not measured"]
    assert rows[2]["ms"] == 82
    ours = rows[1]
    # Two thirds of it is the image tower.
    assert 2.3 < ours["stages_ms"]["image"] < 2.5
    assert 3.0 < ours["floor_ms"] <= ours["fused_floor_ms"] < 4.0


def test_a_measurement_becomes_a_fraction() -> None:
    figures = {"candidates": {OURS: {"kept": [32, 32, 32], "p50_ms": 10.0}}, "categories": 150}
    file = {"preset": "sed-b", "gpu": "NVIDIA H200", "precision": "fp16", "backend": "tensorrt"} | {
        "results": [figures]
    }
    content = roofline(preset_named("sed-b"), 150, (32, 32, 32), "fp16", ["h200", "l4"], [file])
    (ours,) = (row for row in content["results"] if "fraction" in row)
    predicted = [row for row in content["results"] if row["gpu"] == "h200" and row["kind"] == "predicted"]
    assert ours["fraction"] == pytest.approx(predicted[-1]["fused_floor_ms"] / 10)
    assert [row["kind"] for row in content["results"] if row["gpu"] == "l4"][-1] == "not measured"


@pytest.mark.parametrize(
    ("called", "gpu"),
    [
        ("NVIDIA L4", "l4"),
        ("NVIDIA L40S", "l40s"),
        ("NVIDIA H100 80GB HBM3", "h100"),
        ("NVIDIA H200", "h200"),
        ("NVIDIA RTX A6000", "a6000"),
        ("NVIDIA A100-SXM4-40GB", "a100-40gb"),
        ("NVIDIA GeForce RTX 4090", "rtx4090"),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", None),
        ("NVIDIA GeForce RTX 3090 Ti", None),
        ("NVIDIA H100 PCIe", None),
        ("NVIDIA GH200 480GB", None),
        ("", None),
    ],
)
def test_whole_words_name_a_gpu(called: str, gpu: str | None) -> None:
    assert [name for name, peak in GPUS.items() if peak.is_called(called)] == ([gpu] if gpu else [])


@pytest.mark.parametrize(("precision", "compared"), [("fp16", True), ("fp32", False), ("int8", False)])
def test_another_precision_is_not_compared(precision: str, compared: bool) -> None:
    figures = {"candidates": {OURS: {"kept": [32, 32, 32], "p50_ms": 10.0}}, "categories": 150}
    measured = {"preset": "sed-b", "gpu": "NVIDIA H200", "precision": precision, "backend": "tensorrt"}
    file = measured | {"results": [figures]}
    content = roofline(preset_named("sed-b"), 150, (32, 32, 32), "fp16", ["h200"], [file])
    assert any("fraction" in row for row in content["results"]) is compared


@pytest.mark.parametrize("gpu", ["a6000", "all"])
def test_command(gpu: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [
        "bench",
        "roofline",
        "--preset",
        "sed-b",
        "--categories",
        "150",
        "--kept",
        "32",
        "--gpu",
        gpu,
    ]
    assert main(arguments) == 0
    shown = capsys.readouterr().out
    assert "predicted" in shown and "82" in shown and "not measured" in shown
    assert main([*arguments, "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["kind"] == "roofline"
    assert {row["gpu"] for row in content["results"]} == (set(GPUS) if gpu == "all" else {gpu})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--gpu", "a6001"], "--gpu: 'a6001' is unknown; give a6000"),
        (["--preset", "sed-x"], "preset 'sed-x' is not known"),
        (["--kept", "200"], "--kept: 200 of 150 categories"),
        (["--precision", "fp8"], "--precision: 'fp8' is unknown"),
        (["--measured", "missing.json"], "missing.json: cannot be read"),
    ],
)
def test_bad_options_are_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", "roofline", "--preset", "sed-b", *arguments]) == 2
    assert message in capsys.readouterr().err
