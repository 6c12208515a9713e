"""The processes of a training run: how many, on which devices, and how an error in one reaches the user."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import GradientAccumulationPlugin, InitProcessGroupKwargs, ProjectConfiguration

from ..errors import InputError
from ..model import is_out_of_memory
from .config import TrainConfig

MODULE = "sed_trt.cli.main"
# Process 0 may download weights and embed names meanwhile, which takes longer than NCCL's ten minutes.
TIMEOUT = timedelta(hours=2)
# In PyTorch's errors: its loader's of a process that the system ended, Gloo's of a lost connection.
ENDED_WORKER = "DataLoader worker (pid"
GLOO = "gloo/transport"


def check_processes(config: TrainConfig, gpus: int | None) -> None:
    """Find out before anything starts whether the GPUs are there and the batch divides among the processes.

    Args:
        config: the run's settings.
        gpus: how many GPUs are asked for; 0 means none, None as many as there are processes.

    Raises:
        InputError: they are not, it does not, or the precision needs a GPU.
    """
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    here = int(os.environ.get("LOCAL_WORLD_SIZE", processes))
    available = torch.cuda.device_count()
    if gpus and available < min(gpus, here if processes > 1 else gpus):
        raise InputError(
            f"--gpus {gpus}: this machine has {available} GPUs that PyTorch can use; ask for {available}"
        )
    if gpus and processes != gpus:
        raise InputError(
            f"--gpus {gpus}: {processes} process runs, each computes on one GPU; start it with "
            f"`torchrun --nproc-per-node {gpus} -m {MODULE} train ...`"
        )
    if gpus is None and 0 < available < here:
        raise InputError(
            f"{here} processes run here for {available} GPUs; start {available} of them, or add --gpus 0"
        )
    if config.mixed_precision == "fp16" and (gpus == 0 or not available):
        raise InputError("--mixed-precision fp16: needs a GPU; choose no or bf16")
    if config.batch % (processes * config.accumulate):
        raise InputError(
            f"batch is {config.batch}; it must be a multiple of processes x accumulate, "
            f"{processes} x {config.accumulate}"
        )


@contextmanager
def started(config: TrainConfig, gpus: int | None, folder: Path) -> Iterator[Accelerator]:
    """Accelerate for one run: on the CPU deterministic, on GPUs with TF32 and cuDNN's search as published.

    Args:
        config: the run's settings.
        gpus: as for `check_processes`.
        folder: of the run, for TensorBoard.

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
        # The loop divides by the micro-batches itself; an environment variable must not do it again.
        gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=1),
        kwargs_handlers=[InitProcessGroupKwargs(timeout=TIMEOUT)],
        log_with="tensorboard",
        project_config=ProjectConfiguration(logging_dir=str(folder)),
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


@contextmanager
def one_line_errors(config: TrainConfig) -> Iterator[None]:
    """Turn PyTorch's errors of short memory and of lost processes into one line.

    Raises:
        InputError: memory is too small for a step or for the processes that read samples, or the connection
            to another process broke, as it does where that one ends.
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
        if isinstance(error, torch.distributed.DistError) or GLOO in str(error):
            reason = str(error).split("\n")[0]
            raise InputError(
                f"the connection to another process of the run broke ({reason}); if one ended, see its line"
            ) from error
        raise
