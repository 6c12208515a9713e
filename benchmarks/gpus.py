"""What GPUs can do at most, as their makers say."""

import re
from dataclasses import dataclass

# With one of these words after it, a name means another GPU with other limits than the one in `GPUS`.
_VARIANT = re.compile(r"\b(laptop|max-q|ti|d|pcie|nvl)\b", re.IGNORECASE)


@dataclass(frozen=True)
class GpuPeak:
    """A GPU's limits.

    Attributes:
        name: as in its data sheet, and whole words of what the driver calls it.
        fp16_tflops: dense FP16 matrix products with FP32 sums, 10^12 FLOP/s.
        fp32_tflops: FP32 outside the tensor cores.
        bandwidth: of its memory, 10^9 bytes/s.
    """

    name: str
    fp16_tflops: float
    fp32_tflops: float
    bandwidth: float

    def is_called(self, driver_name: str) -> bool:
        """Whether the driver's name means this GPU: "NVIDIA L40S" is no L4, a Laptop GPU not its namesake."""
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
