"""A candidate that is PyTorch itself, and the exports; the only part of the check that needs PyTorch."""

import math
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import InputError
from ..export import VerificationError, export_bundle
from ..export.export import write_files
from ..export.stages import graph_specs
from ..model import SED, preset_named
from ..model.labels import label_map
from .gpu_check_jobs import Job, Model
from .gpu_check_steps import TOP_K, Labelled, Steps, category_names, measure, one_line, random_text

_DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16}


def run_pytorch(job: Job, work: Path, steps: Steps) -> None:
    """Label with the model's own `reject`, in FP32 or under autocast.

    Raises:
        InputError: the checkpoint cannot be read, or PyTorch sees no GPU.
    """
    device = torch.device(job.backend.removeprefix("pytorch-"))
    steps.note(built=None, opened=False)
    with steps.doing("opening", seconds="open_seconds"):
        if device.type == "cuda" and not torch.cuda.is_available():
            raise InputError(f"PyTorch {torch.__version__}: sees no GPU (CUDA {torch.version.cuda})")
        # FP32 shall be FP32: both would round the factors to TF32.
        torch.set_float32_matmul_precision("highest")
        torch.backends.cudnn.allow_tf32 = False
        model = load_model(job.model).to(device)
    steps.note(opened=True, ran_on=job.backend)
    with steps.doing("embedding the vocabulary", seconds="vocabulary_seconds"):
        text = _text(job.model, model).to(device)
    timer = _Timer(model)

    def label(image: np.ndarray) -> Labelled:
        return timer.labelled(torch.from_numpy(image), text, job.precision)

    measure(label, job, work, steps)
    if device.type == "cuda":
        steps.note(pytorch_peak_mib=torch.cuda.max_memory_allocated() / 2**20)


def export(job: Job, work: Path, steps: Steps) -> None:
    """Export a model. One with random weights is not verified, which takes minutes; nor is one that fails.

    Raises:
        InputError: the checkpoint cannot be exported.
    """
    folder = job.bundle(work)
    with steps.doing("exporting", seconds="export_seconds"):
        if job.model.checkpoint is None:
            # The manifest wants the name and the sha256 of a file; these weights come from a seed.
            source = job.folder(work) / "random-weights-seed-0"
            source.write_text(job.model.preset)
            steps.note(verified=None)
            _export_unverified(job, source, folder)
            return
        try:
            export_bundle(job.model.checkpoint, folder, precision=job.precision)
            steps.note(verified=True)
        except VerificationError as error:
            # What runs the bundle is compared with PyTorch all the same.
            steps.note(verified=False, verification_error=one_line(error))
            _export_unverified(job, Path(job.model.checkpoint), folder)


def _export_unverified(job: Job, checkpoint: Path, folder: Path) -> None:
    model = load_model(job.model)
    folder.mkdir(parents=True)
    write_files(model, checkpoint, graph_specs(model), job.precision, folder, lambda *_: None)


def load_model(model: Model) -> SED:
    """The network of a model: its checkpoint's, or one with the same random weights in every process.

    Raises:
        InputError: the checkpoint cannot be read.
    """
    if model.checkpoint is not None:
        return SED.from_checkpoint(model.checkpoint)
    torch.manual_seed(0)
    network = SED(preset_named(model.preset)).eval()
    for name, parameter in network.named_parameters():
        # Nothing here runs the text tower.
        if not name.startswith("clip.") or name.startswith("clip.visual."):
            _randomise(name, parameter)
    return network


def _randomise(name: str, parameter: nn.Parameter) -> None:
    # As they are made, layer scales are near zero: blocks would do nothing, and hide every error.
    if name.endswith("gamma"):
        nn.init.normal_(parameter, 0.3, 0.1)
    elif parameter.ndim >= 2:
        # Weights of a transposed convolution have their inputs first.
        transposed = name.endswith(".up.weight") or "corr_guidance_projection" in name
        fan_in = parameter.shape[0] if transposed else math.prod(parameter.shape[1:])
        nn.init.normal_(parameter, 0.0, fan_in**-0.5)
    else:
        nn.init.normal_(parameter, 1.0 if name.endswith("weight") else 0.0, 0.1)


def _text(model: Model, network: SED) -> Tensor:
    names = category_names(model)
    if model.checkpoint is not None:
        return network.encode_vocabulary(names)
    return torch.from_numpy(random_text(len(names), len(network.templates), network.preset.embed_dim))


class _Timer:
    """Runs a network and tells how long its parts take; the GPU is waited for after each."""

    def __init__(self, model: SED) -> None:
        self._model = model
        self._encode = model.encode_images
        self._image_ms = 0.0
        model.encode_images = self._timed_encode  # type: ignore[method-assign]

    def labelled(self, image: Tensor, text: Tensor, precision: str) -> Labelled:
        """Labels of a picture, uint8 (H, W, 3); logits become FP32 before labels are made of them."""
        kind = self._model.device.type
        dtype = _DTYPES.get(precision)
        with nullcontext() if dtype is None else torch.autocast(kind, dtype=dtype):
            started = self._now()
            left = self._model.reject(image, text, TOP_K)
            rejected = self._now()
        with torch.no_grad():
            labels = label_map(left.logits.float(), left.kept, *image.shape[:2]).cpu().numpy()
        ended = self._now()
        kept = tuple(len(each) for each in left.survivors)
        decode = rejected - started - self._image_ms
        timings = {"image": self._image_ms, "decode": decode, "label": ended - rejected}
        return Labelled(labels, kept, timings)

    def _timed_encode(self, images: Tensor) -> Any:
        started = self._now()
        encoded = self._encode(images)
        self._image_ms = self._now() - started
        return encoded

    def _now(self) -> float:
        """Milliseconds, with all work done."""
        if self._model.device.type == "cuda":
            torch.cuda.synchronize()
        return 1000 * time.perf_counter()
