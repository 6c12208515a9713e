"""Checkpoints and bundles behind one call: a picture in, labels and kept counts out."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..engines.bundle import Bundle
from ..errors import InputError
from ..paths import is_folder
from ..runtime import KeepAll, Rejection, Segmenter, TopK

if TYPE_CHECKING:
    from ..model import SED

Progress = Callable[[int, int], None]


@dataclass(frozen=True, eq=False)
class Prediction:
    """Labels, integers (H, W), and how many categories were left after each rejection point."""

    labels: np.ndarray
    kept: tuple[int, ...]


Predictor = Callable[[np.ndarray], Prediction]


@dataclass(frozen=True, eq=False)
class Source:
    """A checkpoint or a bundle, opened.

    Attributes:
        name: of its file or folder.
        runs_on: "PyTorch", or the backend of the bundle with what is special about it.
        precision: "fp32", "fp16", "bf16" or "int8".
        with_names: embeds a vocabulary and gives, for a rejection policy, the predictor of pictures, uint8
            (H, W, 3); it raises InputError for names or a policy that cannot be.
        segmenter: of a bundle.
    """

    name: str
    runs_on: str
    precision: str
    with_names: Callable[[Sequence[str], Progress | None], Callable[[Rejection], Predictor]]
    segmenter: Segmenter | None


@contextmanager
def open_source(path: Path, backend: str | None = None, emulate: bool = True) -> Iterator[Source]:
    """Open a checkpoint file, which PyTorch runs, or a bundle folder, which the runtime runs on `backend`.

    Pictures go straight to the network, without the first resize to a shorter side of 640.

    Args:
        path: of the file or folder.
        backend: of a bundle; None is "auto".
        emulate: whether a half-precision bundle that only the CPU can run is rounded after every operator.

    Raises:
        InputError: neither can be read there, or the backend is not there.
    """
    if is_folder(path):
        with open_bundle(path, backend, emulate) as source:
            yield source
        return
    from ..model import SED

    model = SED.from_checkpoint(path)
    yield Source(
        path.name,
        "PyTorch",
        "fp32",
        lambda names, progress: checkpoint_predictors(model, names, progress),
        None,
    )


@contextmanager
def open_bundle(path: Path, backend: str | None, emulate: bool) -> Iterator[Source]:
    """Open a bundle folder; see `open_source`."""
    bundle = Bundle.open(path)
    precision = bundle.manifest.precision
    half = emulate and precision in ("fp16", "bf16") and backend in (None, "auto", "onnxruntime")
    try:
        segmenter = Segmenter(path, backend)
    except InputError:
        # The CPU refuses bfloat16, but not its emulation.
        if not half:
            raise
    else:
        if not half or segmenter.backend != "onnxruntime":
            yield bundle_source(path, segmenter.backend, precision, segmenter)
            return
    from ..export.rounding_emulation import rounding

    with rounding(bundle) as rounded:
        segmenter = Segmenter(rounded.path, "onnxruntime")
        yield bundle_source(path, "onnxruntime, every operator rounded", precision, segmenter)


def bundle_source(path: Path, runs_on: str, precision: str, segmenter: Segmenter) -> Source:
    """A bundle's engines as a source."""

    def with_names(names: Sequence[str], progress: Progress | None) -> Callable[[Rejection], Predictor]:
        vocabulary = segmenter.vocabulary(names, progress)

        def with_rejection(rejection: Rejection) -> Predictor:
            def predict(image: np.ndarray) -> Prediction:
                result = segmenter(image, vocabulary, rejection=rejection, short_side=None)
                return Prediction(result.labels, result.kept)

            return predict

        return with_rejection

    return Source(path.name, runs_on, precision, with_names, segmenter)


def checkpoint_predictors(
    model: "SED", names: Sequence[str], progress: Progress | None
) -> Callable[[Rejection], Predictor]:
    """Predictors that run PyTorch."""
    import torch

    from ..model.labels import label_map

    text = model.encode_vocabulary(names, progress)

    def with_rejection(rejection: Rejection) -> Predictor:
        if isinstance(rejection, KeepAll):
            return lambda image: Prediction(
                model.segment(torch.from_numpy(image), text, k=None).numpy(), (len(names),) * 3
            )
        if not isinstance(rejection, TopK):
            raise InputError(
                f"rejection {rejection} runs in a bundle only; for a checkpoint give topk:K or none"
            )
        k = rejection.k

        def predict(image: np.ndarray) -> Prediction:
            left = model.reject(torch.from_numpy(image), text, k)
            labels = label_map(left.logits, left.kept, *image.shape[:2])
            return Prediction(labels.numpy(), tuple(len(each) for each in left.survivors))

        return predict

    return with_rejection
