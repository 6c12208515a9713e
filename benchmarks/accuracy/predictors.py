"""Checkpoints and bundles behind one call: a picture in, labels and kept counts by rejection policy out."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ...bundle import Bundle
from ...errors import InputError
from ...files import is_folder
from ...runtime import KeepAll, Rejection, Segmenter, TopK, Vocabulary
from ...runtime.images import resize_short_side

if TYPE_CHECKING:
    from torch import Tensor

    from ...model import SED

    Encoded = tuple[Tensor, list[Tensor]]

Progress = Callable[[int, int], None]


@dataclass(frozen=True, eq=False)
class Prediction:
    """Labels, integers (H, W), and how many categories were left after each rejection point."""

    labels: np.ndarray
    kept: tuple[int, ...]


# A prediction for each rejection policy.
Predictor = Callable[[np.ndarray], tuple[Prediction, ...]]


@dataclass(frozen=True, eq=False)
class Source:
    """A checkpoint or a bundle, opened.

    Attributes:
        name: of its file or folder.
        runs_on: "PyTorch", or the backend of the bundle, with what is special about it.
        precision: "fp32", "fp16", "bf16" or "int8".
        preset: for example "sed-b".
        embed: embeds a vocabulary, float32 (T, P, C); it raises InputError for names that cannot be.
        with_text: takes a vocabulary with its embeddings and rejection policies, and gives the predictor of
            pictures, uint8 (H, W, 3), at their own size, which encodes each once; it raises InputError for a
            policy that cannot be.
        segmenter: of a bundle.
    """

    name: str
    runs_on: str
    precision: str
    preset: str
    embed: Callable[[Sequence[str], Progress | None], np.ndarray]
    with_text: Callable[[Sequence[str], np.ndarray, Sequence[Rejection]], Predictor]
    segmenter: Segmenter | None


@contextmanager
def open_source(
    path: Path,
    backend: str | None = None,
    emulate: bool = True,
    short_side: int | None = None,
    threads: int | None = None,
) -> Iterator[Source]:
    """Open a checkpoint file, which PyTorch runs, or a bundle folder, which the runtime runs on `backend`.

    PyTorch takes the first GPU that it sees, with all products in FP32.

    Args:
        path: of the file or folder.
        backend: of a bundle; None is "auto".
        emulate: whether a half-precision bundle that only the CPU can run is rounded after every operator.
        short_side: pixels to which the shorter side of pictures is resized before the network's own resize;
            None gives them straight to the network.
        threads: CPU threads of one operator; None is one per core.

    Raises:
        InputError: neither can be read there, or the backend is not there.
    """
    if is_folder(path):
        with open_bundle(path, backend, emulate, short_side, threads) as source:
            yield source
        return
    import torch

    from ...model import SED

    model = SED.from_checkpoint(path)
    runs_on = "PyTorch"
    if threads is not None:
        torch.set_num_threads(threads)
    if torch.cuda.is_available():
        # Both would round factors to TF32.
        torch.set_float32_matmul_precision("highest")
        torch.backends.cudnn.allow_tf32 = False
        model, runs_on = model.to("cuda"), f"PyTorch, {torch.cuda.get_device_name()}"
    yield checkpoint_source(path, runs_on, model, short_side)


@contextmanager
def open_bundle(
    path: Path, backend: str | None, emulate: bool, short_side: int | None, threads: int | None
) -> Iterator[Source]:
    """Open a bundle folder; see `open_source`."""
    bundle = Bundle.open(path)
    precision = bundle.manifest.precision
    half = emulate and precision in ("fp16", "bf16") and backend in (None, "auto", "onnxruntime")
    try:
        segmenter = Segmenter(path, backend, threads)
    except InputError:
        # The CPU refuses bfloat16, but not its emulation.
        if not half:
            raise
    else:
        if not half or segmenter.backend != "onnxruntime":
            yield bundle_source(path, segmenter.backend, precision, segmenter, short_side)
            return
    from ...export.verification import emulate_half

    with emulate_half(bundle) as emulation:
        segmenter = Segmenter(emulation.path, "onnxruntime", threads)
        yield bundle_source(path, "onnxruntime, every operator rounded", precision, segmenter, short_side)


def bundle_source(
    path: Path, runs_on: str, precision: str, segmenter: Segmenter, short_side: int | None
) -> Source:
    """A bundle's engines as a source."""

    def with_text(names: Sequence[str], text: np.ndarray, policies: Sequence[Rejection]) -> Predictor:
        vocabulary = Vocabulary(tuple(names), text)

        def predict(image: np.ndarray) -> tuple[Prediction, ...]:
            encoded = segmenter.encode(image, short_side)
            results = (segmenter(encoded, vocabulary, policy) for policy in policies)
            return tuple(Prediction(result.labels, result.kept) for result in results)

        return predict

    preset = segmenter.bundle.manifest.preset
    return Source(
        path.name,
        runs_on,
        precision,
        preset,
        lambda names, progress: segmenter.vocabulary(names, progress).text,
        with_text,
        segmenter,
    )


def checkpoint_source(path: Path, runs_on: str, model: "SED", short_side: int | None) -> Source:
    """A model in PyTorch as a source."""
    import torch

    from ...model import is_out_of_memory
    from ...model.labels import label_map

    def embed(names: Sequence[str], progress: Progress | None) -> np.ndarray:
        return model.encode_vocabulary(names, progress).cpu().numpy()

    def with_text(names: Sequence[str], embeddings: np.ndarray, policies: Sequence[Rejection]) -> Predictor:
        ks: list[int | None] = []
        for policy in policies:
            if not isinstance(policy, KeepAll | TopK):
                raise InputError(
                    f"rejection {policy} runs in a bundle only; for a checkpoint give topk:K or none"
                )
            ks.append(policy.k if isinstance(policy, TopK) else None)
        text = torch.from_numpy(embeddings).to(model.device)

        def labelled(encoded: "Encoded", k: int | None, height: int, width: int) -> Prediction:
            left = model.decode_rejecting(*encoded, text, k)
            labels = label_map(left.logits, left.kept, height, width)
            return Prediction(labels.cpu().numpy(), tuple(len(each) for each in left.survivors))

        @torch.no_grad()
        def predict(image: np.ndarray) -> tuple[Prediction, ...]:
            try:
                pixels = torch.from_numpy(resize_short_side(image, short_side))
                encoded = model.encode_images(pixels.unsqueeze(0))
                return tuple(labelled(encoded, k, *image.shape[:2]) for k in ks)
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                raise InputError(
                    f"PyTorch: out of memory at {len(names)} categories; take fewer --processes, or "
                    "`sed-trt export` a bundle, which needs less"
                ) from error

        return predict

    return Source(path.name, runs_on, "fp32", model.preset.name, embed, with_text, None)


def description(source: Source) -> dict[str, str]:
    """What results files say about a source."""
    return {"name": source.name, "runs_on": source.runs_on, "precision": source.precision}
