"""Lower bounds of the time on a GPU, from its data sheet, and what fraction of them a measurement reached."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...model.presets import Preset
from .candidates import OURS
from .costs import DESIGNS, StageCost, stage_costs

# A name followed by one of these words means another GPU, with other limits than the one in `GPUS`.
_VARIANT = re.compile(r"\b(laptop|max-q|ti|d|pcie|nvl)\b", re.IGNORECASE)


@dataclass(frozen=True)
class GpuPeak:
    """A GPU's limits.

    Attributes:
        name: as in its data sheet; the name that the driver gives contains it as whole words.
        fp16_tflops: dense FP16 matrix products with FP32 sums, 10^12 FLOP/s.
        fp32_tflops: FP32 outside the tensor cores.
        bandwidth: of its memory, 10^9 bytes/s.
    """

    name: str
    fp16_tflops: float
    fp32_tflops: float
    bandwidth: float

    def is_called(self, driver_name: str) -> bool:
        """Whether the driver's name means this GPU: an "NVIDIA L40S" is no L4, a Laptop GPU another one."""
        named = re.search(rf"\b{re.escape(self.name)}\b", driver_name, re.IGNORECASE)
        return named is not None and _VARIANT.search(driver_name, named.end()) is None


# Data sheets often give FP16 with structured sparsity, which is twice the dense figure here.
GPUS = {
    # NVIDIA RTX A6000 data sheet, and the Ampere GA102 whitepaper's appendix.
    "a6000": GpuPeak("RTX A6000", 154.8, 38.7, 768),
    # NVIDIA A100 data sheet, SXM with 80 GB and with 40 GB.
    "a100": GpuPeak("A100-SXM4-80GB", 312, 19.5, 2039),
    "a100-40gb": GpuPeak("A100-SXM4-40GB", 312, 19.5, 1555),
    # NVIDIA H100 data sheet, SXM.
    "h100": GpuPeak("H100", 989.4, 66.9, 3350),
    # NVIDIA H200 data sheet, SXM.
    "h200": GpuPeak("H200", 989.4, 66.9, 4800),
    # NVIDIA L4 and L40S data sheets.
    "l4": GpuPeak("L4", 121, 30.3, 300),
    "l40s": GpuPeak("L40S", 362, 91.6, 864),
    # NVIDIA Ada GPU architecture whitepaper, appendix on the GeForce RTX 4090.
    "rtx4090": GpuPeak("RTX 4090", 165.2, 82.6, 1008),
    # NVIDIA Ampere GA102 whitepaper, GeForce RTX 3090.
    "rtx3090": GpuPeak("RTX 3090", 71, 35.6, 936),
}

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
    stages run one after the other. `floor_ms` counts `StageCost.minimum`, `fused_floor_ms`
    `StageCost.fused`. `pixels` and `label` are left out.

    Args:
        preset: of the network.
        categories: T.
        kept: categories alive after each of the three rejection points.
        precision: of weights and features.
        gpus: names of `GPUS`.
        measured: contents of latency results, for the fraction reached; those of another precision or GPU are
            ignored.
    """
    costs = {design: stage_costs(preset, categories, kept, design) for design in DESIGNS}
    each = BYTES[precision]
    stages = [
        {
            "design": design,
            "stage": cost.stage,
            "gflop": cost.flops / 1e9,
            "minimum_mb": each * cost.minimum / 1e6,
            "fused_mb": each * cost.fused / 1e6,
        }
        for design, of_design in costs.items()
        for cost in of_design
    ]
    rows: list[dict[str, Any]] = []
    for gpu in gpus:
        fused_floor = 0.0
        for design, of_design in costs.items():
            floors = [floor(cost, GPUS[gpu], precision) for cost in of_design]
            fused_floor = sum(fused for _, fused in floors)
            rows.append(
                {
                    "gpu": gpu,
                    "design": design,
                    "kind": "predicted",
                    "stages_ms": {cost.stage: two[1] for cost, two in zip(of_design, floors, strict=True)},
                    "floor_ms": sum(minimum for minimum, _ in floors),
                    "fused_floor_ms": fused_floor,
                }
            )
        rows += _measured_rows(gpu, preset, categories, kept, precision, measured, fused_floor)
    return {
        "preset": preset.name,
        "categories": categories,
        "kept": list(kept),
        "precision": precision,
        "stages": stages,
        "results": rows,
    }


def floor(cost: StageCost, gpu: GpuPeak, precision: str) -> tuple[float, float]:
    """Milliseconds at 100 % of a GPU's peak, with the traffic `minimum` and with the traffic `fused`."""
    rate = gpu.fp32_tflops if precision == "fp32" else gpu.fp16_tflops
    arithmetic = cost.flops / (rate * 1e9)
    traffic = [BYTES[precision] * values / (gpu.bandwidth * 1e6) for values in (cost.minimum, cost.fused)]
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
    """Rows of the paper's time, if there is one for this GPU, and of our measured times.

    Without any of ours, a row says so.
    """
    rows: list[dict[str, Any]] = []
    paper = PAPER.get((preset.name, categories, gpu))
    if paper is not None:
        rows.append({"gpu": gpu, "design": "published", "kind": "the paper's, PyTorch", "ms": paper})
    for file in measured:
        if file["preset"] != preset.name or not GPUS[gpu].is_called(file["gpu"] or ""):
            continue
        for row in file["results"]:
            # The floor is of one precision: a fraction of it says nothing about a run in another.
            measured_in = row.get("precision") or file["precision"]
            ours = row["candidates"].get(OURS)
            if (
                measured_in != precision
                or row["categories"] != categories
                or ours is None
                or ours["kept"] != list(kept)
            ):
                continue
            rows.append(
                {
                    "gpu": gpu,
                    "design": OURS,
                    "kind": f"measured, {measured_in} on {row.get('backend') or file['backend']}",
                    "ms": ours["p50_ms"],
                    "fraction": fused_floor / ours["p50_ms"],
                }
            )
    if not any(row["design"] == OURS for row in rows):
        rows.append({"gpu": gpu, "design": OURS, "kind": NOT_MEASURED})
    return rows
