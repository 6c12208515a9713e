"""What a run asks of the machine and does not get, in one line."""

from collections.abc import Iterator
from contextlib import contextmanager

from ..errors import InputError
from ..model.out_of_memory import tells_of_memory
from .config import TrainConfig

# What PyTorch's loader says of a process that the system ended.
ENDED_WORKER = "DataLoader worker (pid"


@contextmanager
def enough_memory(config: TrainConfig) -> Iterator[None]:
    """Turn PyTorch's errors of a GPU or a machine whose memory is too small into one line.

    Raises:
        InputError: it is too small for a step, or for the processes that read samples.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if tells_of_memory(error):
            names = "all" if config.categories is None else config.categories
            raise InputError(
                f"out of memory with batch {config.batch}, accumulate {config.accumulate}, "
                f"crop {config.crop}, categories {names}; raise --accumulate, add --checkpointing "
                "or --mixed-precision bf16, or lower categories"
            ) from error
        if ENDED_WORKER in str(error):
            raise InputError(
                f"workers is {config.workers}: the system ended one that read samples, as it does where "
                "memory is short; lower workers and go on with --resume"
            ) from error
        raise
