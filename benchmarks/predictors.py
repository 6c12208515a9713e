"""Checkpoints and bundles behind one call: a picture in, labels and kept counts out."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

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


def open_predictor(
    source: Path, names: Sequence[str], backend: str | None = None, progress: Progress | None = None
) -> Callable[[Rejection], Predictor]:
    """Load a checkpoint file (PyTorch) or a bundle folder (the runtime) and embed a vocabulary once.

    Pictures go straight to the network, without the first resize to a shorter side of 640.

    Returns:
        For a rejection policy, the predictor of pictures, uint8 (H, W, 3).

    Raises:
        InputError: neither can be read there, or PyTorch is asked for a policy it does not have.
    """
    if is_folder(source):
        return bundle_predictors(Segmenter(source, backend), names, progress)
    from ..model import SED

    return checkpoint_predictors(SED.from_checkpoint(source), names, progress)


def bundle_predictors(
    segmenter: Segmenter, names: Sequence[str], progress: Progress | None
) -> Callable[[Rejection], Predictor]:
    """Predictors that run a bundle's engines."""
    vocabulary = segmenter.vocabulary(names, progress)

    def with_rejection(rejection: Rejection) -> Predictor:
        def predict(image: np.ndarray) -> Prediction:
            result = segmenter(image, vocabulary, rejection=rejection, short_side=None)
            return Prediction(result.labels, result.kept)

        return predict

    return with_rejection


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
