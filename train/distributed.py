"""The processes of a run, their devices, and what they lack."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
from accelerate import Accelerator
from accelerate.utils import GradientAccumulationPlugin, InitProcessGroupKwargs

from ..errors import InputError
from ..model import is_out_of_memory
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
        if is_out_of_memory(error):
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


MODULE = "sed_trt.cli.main"
# Process 0 may download weights and embed names meanwhile, which takes longer than NCCL's ten minutes.
PATIENCE = timedelta(hours=2)


def check_processes(config: TrainConfig, gpus: int | None) -> None:
    """Find out before anything starts whether the GPUs are there and the batch divides among the processes.

    Args:
        config: the run's settings.
        gpus: how many GPUs are asked for; 0 means none, None as many as there are processes.

    Raises:
        InputError: they are not, it does not, or the precision needs a GPU.
    """
    processes, here = launched()
    found = torch.cuda.device_count()
    if gpus and found < min(gpus, here if processes > 1 else gpus):
        raise InputError(
            f"--gpus {gpus}: this machine has {found} GPUs that PyTorch can use; ask for {found}"
        )
    if gpus and processes != gpus:
        raise InputError(
            f"--gpus {gpus}: {processes} process runs, each computes on one GPU; start it with "
            f"`torchrun --nproc-per-node {gpus} -m {MODULE} train ...`"
        )
    if gpus is None and 0 < found < here:
        raise InputError(
            f"{here} processes run here for {found} GPUs; start {found} of them, or add --gpus 0"
        )
    if config.mixed_precision == "fp16" and (gpus == 0 or not found):
        raise InputError("--mixed-precision fp16: needs a GPU; choose no or bf16")
    parts = processes * config.accumulate
    if config.batch % parts:
        raise InputError(
            f"batch is {config.batch}; it must be a multiple of processes x accumulate, "
            f"{processes} x {config.accumulate}"
        )


def launched() -> tuple[int, int]:
    """How many processes a launcher such as torchrun started in all, and how many on this machine."""
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    return processes, int(os.environ.get("LOCAL_WORLD_SIZE", processes))


@contextmanager
def started(config: TrainConfig, gpus: int | None) -> Iterator[Accelerator]:
    """Accelerate for one run: on the CPU deterministic, on GPUs with TF32 and cuDNN's search as published.

    Raises:
        InputError: as `check_processes` does.
    """
    check_processes(config, gpus)
    on_cpu = gpus == 0 or not torch.cuda.is_available()
    precision = torch.get_float32_matmul_precision()
    deterministic = torch.are_deterministic_algorithms_enabled()
    filled = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    benchmark = torch.backends.cudnn.benchmark
    accelerator = Accelerator(
        cpu=on_cpu,
        mixed_precision=config.mixed_precision,
        # The loop divides by the parts itself; without this a variable of the environment would do it again.
        gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=1),
        kwargs_handlers=[InitProcessGroupKwargs(timeout=PATIENCE)],
    )
    try:
        if on_cpu:
            torch.use_deterministic_algorithms(True, warn_only=True)
            torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
        else:
            torch.set_float32_matmul_precision("high")
            # Each number of categories would be tried out anew.
            torch.backends.cudnn.benchmark = config.categories is None or not config.vary_categories
        yield accelerator
        if accelerator.num_processes > 1:
            accelerator.end_training()
    finally:
        torch.use_deterministic_algorithms(deterministic)
        torch.utils.deterministic.fill_uninitialized_memory = filled  # type: ignore[attr-defined]
        torch.set_float32_matmul_precision(precision)
        torch.backends.cudnn.benchmark = benchmark
        accelerator.free_memory()
