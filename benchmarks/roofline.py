"""How fast a GPU could be at best, from its data sheet; and how near a measurement came."""

from collections.abc import Mapping, Sequence
from typing import Any

from ..model.presets import Preset
from .candidates import OURS
from .gpus import GPUS, GpuPeak
from .stage_costs import DESIGNS, StageCost, stage_costs

BYTES = {"fp32": 4, "fp16": 2, "bf16": 2}
# The paper's time for sed-b with 150 categories and rejection, in PyTorch on this GPU.
PAPER = {("sed-b", 150, "a6000"): 82.0}
NOT_MEASURED = "not measured"


def roofline(
    preset: Preset,
    categories: int,
    kept: Sequence[int],
    precision: str,
    gpus: Sequence[str],
    measured: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """The content of a results file: FLOPs and bytes of each stage, and for each GPU what follows.

    A stage takes at least as long as its arithmetic at the peak rate and its bytes at the peak bandwidth;
    stages run one after the other. `floor_ms` has the fewest bytes, `fused_floor_ms` those between kernels as
    `StageCost` describes them. `pixels` and `label` are left out.

    Args:
        preset: of the network.
        categories: T.
        kept: those alive after each of the three rejections.
        precision: of weights and features.
        gpus: names of `GPUS`.
        measured: contents of latency results, for the fraction reached; those of another precision or GPU are
            left out.
    """
    costs = {design: stage_costs(preset, categories, kept, design) for design in DESIGNS}
    each = BYTES[precision]
    stages = [
        {
            "design": design,
            "stage": cost.stage,
            "gflop": cost.flops / 1e9,
            "fewest_mb": each * cost.fewest / 1e6,
            "fused_mb": each * cost.fused / 1e6,
        }
        for design, of_design in costs.items()
        for cost in of_design
    ]
    rows: list[dict[str, Any]] = []
    for gpu in gpus:
        lowest = 0.0
        for design, of_design in costs.items():
            floors = [floor(cost, GPUS[gpu], precision) for cost in of_design]
            lowest = sum(fused for _, fused in floors)
            rows.append(
                {
                    "gpu": gpu,
                    "design": design,
                    "kind": "predicted",
                    "stages_ms": {cost.stage: two[1] for cost, two in zip(of_design, floors, strict=True)},
                    "floor_ms": sum(fewest for fewest, _ in floors),
                    "fused_floor_ms": lowest,
                }
            )
        rows += _measured_rows(gpu, preset, categories, kept, precision, measured, lowest)
    return {
        "preset": preset.name,
        "categories": categories,
        "kept": list(kept),
        "precision": precision,
        "stages": stages,
        "results": rows,
    }


def floor(cost: StageCost, gpu: GpuPeak, precision: str) -> tuple[float, float]:
    """Milliseconds at 100 % of a GPU's peak, with the fewest bytes and with those between kernels."""
    rate = gpu.fp32_tflops if precision == "fp32" else gpu.fp16_tflops
    arithmetic = cost.flops / (rate * 1e9)
    traffic = [BYTES[precision] * values / (gpu.bandwidth * 1e6) for values in (cost.fewest, cost.fused)]
    return max(arithmetic, traffic[0]), max(arithmetic, traffic[1])


def _measured_rows(
    gpu: str,
    preset: Preset,
    categories: int,
    kept: Sequence[int],
    precision: str,
    measured: Sequence[Mapping[str, Any]],
    fused_floor: float,
) -> list[dict[str, Any]]:
    """The paper's time where there is one, and ours, or that nobody measured it."""
    rows: list[dict[str, Any]] = []
    paper = PAPER.get((preset.name, categories, gpu))
    if paper is not None:
        rows.append({"gpu": gpu, "design": "published", "kind": "the paper's, PyTorch", "ms": paper})
    for file in measured:
        # The floor is of one precision: a fraction of it says nothing about a run in another.
        if (file["preset"], file["precision"]) != (preset.name, precision):
            continue
        if not GPUS[gpu].is_called(file["gpu"] or ""):
            continue
        for row in file["results"]:
            ours = row["candidates"].get(OURS)
            if row["categories"] != categories or ours is None or ours["kept"] != list(kept):
                continue
            rows.append(
                {
                    "gpu": gpu,
                    "design": OURS,
                    "kind": f"measured, {file['precision']} on {file['backend']}",
                    "ms": ours["p50_ms"],
                    "fraction": fused_floor / ours["p50_ms"],
                }
            )
    if not any(row["design"] == OURS for row in rows):
        rows.append({"gpu": gpu, "design": OURS, "kind": NOT_MEASURED})
    return rows
