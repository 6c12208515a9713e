"""How PyTorch says that memory is short."""

import torch


def tells_of_memory(error: BaseException) -> bool:
    """Whether memory is short, of the GPU or, for which PyTorch has no exception of its own, of the CPU."""
    known = isinstance(error, MemoryError | torch.OutOfMemoryError)
    return known or "DefaultCPUAllocator" in str(error)
