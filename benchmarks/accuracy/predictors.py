"""Checkpoints and bundles behind one interface: an image in, labels for each rejection policy out."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ...bundle import HALF_PRECISIONS, Bundle
from ...engines.backends import CPU_BACKENDS
from ...errors import InputError
from ...files import is_folder
from ...runtime import KeepAll, Rejection, Segmenter, TopK, Vocabulary
from ...runtime.images import resize_short_side

if TYPE_CHECKING:
    from ...model import SED

# Called with (names done, names in all).
EmbeddingProgress = Callable[[int, int], None]


@dataclass(frozen=True, eq=False)
class Prediction:
    """Labels of an image, integers (H, W), and how many categories were left after each rejection point."""

    labels: np.ndarray
    kept: tuple[int, ...]


# Labels an image, uint8 (H, W, 3), at its own size: a prediction for each rejection policy.
Predictor = Callable[[np.ndarray], tuple[Prediction, ...]]


@dataclass(frozen=True, eq=False)
class EvaluationSource(ABC):
    """A checkpoint or a bundle, opened.

    Attributes:
        name: of its file or folder.
        runs_on: "PyTorch" with its GPU, or the backend of the bundle.
        precision: "fp32", "fp16", "bf16" or "int8".
        preset: for example "sed-b".
    """

    name: str
    runs_on: str
    precision: str
    preset: str

    def description(self) -> dict[str, str]:
        """The source as results files show it."""
        return {"name": self.name, "runs_on": self.runs_on, "precision": self.precision}

    @abstractmethod
    def embed(self, names: Sequence[str], progress: EmbeddingProgress | None) -> np.ndarray:
        """Embed T names, float32 (T, P, C); raises InputError for a name that cannot be embedded."""

    @abstractmethod
    def predictor(self, names: Sequence[str], text: np.ndarray, policies: Sequence[Rejection]) -> Predictor:
        """A function that labels images with T names and encodes each image once for all policies.

        Args:
            names: of the categories.
            text: their embeddings, float32 (T, P, C).
            policies: rejection policies.

        Raises:
            InputError: the source cannot run a policy; from the function, the memory is too small.
        """


@dataclass(frozen=True, eq=False)
class BundleSource(EvaluationSource):
    """A bundle that the runtime runs."""

    segmenter: Segmenter
    short_side: int | None

    def embed(self, names: Sequence[str], progress: EmbeddingProgress | None) -> np.ndarray:
        return self.segmenter.vocabulary(names, progress).text

    def predictor(self, names: Sequence[str], text: np.ndarray, policies: Sequence[Rejection]) -> Predictor:
        vocabulary = Vocabulary(tuple(names), text)

        def predict(image: np.ndarray) -> tuple[Prediction, ...]:
            encoded = self.segmenter.encode(image, self.short_side)
            results = (self.segmenter(encoded, vocabulary, policy, scores=False) for policy in policies)
            return tuple(Prediction(result.labels, result.kept) for result in results)

        return predict


@dataclass(frozen=True, eq=False)
class CheckpointSource(EvaluationSource):
    """A checkpoint that PyTorch runs."""

    model: "SED"
    short_side: int | None

    def embed(self, names: Sequence[str], progress: EmbeddingProgress | None) -> np.ndarray:
        return self.model.encode_vocabulary(names, progress).cpu().numpy()

    def predictor(self, names: Sequence[str], text: np.ndarray, policies: Sequence[Rejection]) -> Predictor:
        import torch

        from ...model import is_out_of_memory
        from ...model.labels import label_map

        model, ks = self.model, [_top_k(policy) for policy in policies]
        embeddings = torch.from_numpy(text).to(model.device)

        @torch.no_grad()
        def predict(image: np.ndarray) -> tuple[Prediction, ...]:
            try:
                pixels = torch.from_numpy(resize_short_side(image, self.short_side))
                encoded = model.encode_images(pixels.unsqueeze(0))
                predictions = []
                for k in ks:
                    decoded = model.decode_rejecting(*encoded, embeddings, k)
                    labels = label_map(decoded.logits, decoded.kept, *image.shape[:2])
                    kept = tuple(len(each) for each in decoded.survivors)
                    predictions.append(Prediction(labels.cpu().numpy(), kept))
                return tuple(predictions)
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                raise InputError(
                    f"PyTorch: out of memory at {len(names)} categories; take fewer --processes, or "
                    "`sed-trt export` a bundle, which needs less"
                ) from error

        return predict


def _top_k(policy: Rejection) -> int | None:
    """k of the policies that PyTorch runs; None keeps all categories."""
    if not isinstance(policy, KeepAll | TopK):
        raise InputError(f"rejection {policy} runs in a bundle only; for a checkpoint give topk:K or none")
    return policy.k if isinstance(policy, TopK) else None


@contextmanager
def open_source(
    path: Path,
    backend: str | None = None,
    emulate: bool = True,
    short_side: int | None = None,
    threads: int | None = None,
) -> Iterator[EvaluationSource]:
    """Open a checkpoint file, which PyTorch runs, or a bundle folder, which the runtime runs on `backend`.

    PyTorch takes the first GPU that it sees, with all products in FP32.

    Args:
        path: of the file or folder.
        backend: of a bundle; None is "auto".
        emulate: whether a half-precision bundle that only the CPU can run is rounded after every operator.
        short_side: pixels to which the shorter side of images is resized before the network's own resize;
            None gives them straight to the network.
        threads: CPU threads of one operator; None is one per core.

    Raises:
        InputError: the path cannot be read as either, or the backend is not available.
    """
    if is_folder(path):
        with _open_bundle(path, backend, emulate, short_side, threads) as source:
            yield source
    else:
        yield _open_checkpoint(path, short_side, threads)


@contextmanager
def _open_bundle(
    path: Path, backend: str | None, emulate: bool, short_side: int | None, threads: int | None
) -> Iterator[BundleSource]:
    bundle = Bundle.open(path)
    precision, preset = bundle.manifest.precision, bundle.manifest.preset
    emulate = emulate and precision in HALF_PRECISIONS and backend in (None, "auto", "onnxruntime")
    try:
        segmenter = Segmenter(path, backend, threads)
        emulate = emulate and segmenter.backend in CPU_BACKENDS
    except InputError:
        # The CPU refuses bfloat16, but not its emulation.
        if not emulate:
            raise
    if not emulate:
        yield BundleSource(path.name, segmenter.backend, precision, preset, segmenter, short_side)
        return
    from ...export.verification import emulate_half

    with emulate_half(bundle) as rounded:
        segmenter = Segmenter(rounded.path, "onnxruntime", threads)
        runs_on = "onnxruntime, every operator rounded"
        yield BundleSource(path.name, runs_on, precision, preset, segmenter, short_side)


def _open_checkpoint(path: Path, short_side: int | None, threads: int | None) -> CheckpointSource:
    import torch

    from ...model import SED

    model, runs_on = SED.from_checkpoint(path), "PyTorch"
    if threads is not None:
        torch.set_num_threads(threads)
    if torch.cuda.is_available():
        # Both would round factors to TF32.
        torch.set_float32_matmul_precision("highest")
        torch.backends.cudnn.allow_tf32 = False
        model, runs_on = model.to("cuda"), f"PyTorch, {torch.cuda.get_device_name()}"
    return CheckpointSource(path.name, runs_on, "fp32", model.preset.name, model, short_side)
