"""What the latency benchmark compares, each behind one call: a picture and kept sets in, labels out."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ...errors import InputError
from ...runtime import Rejection, Segmenter, Vocabulary
from ..gpu_check_steps import Labelled

if TYPE_CHECKING:
    from ...model import SED
    from ..baselines.published import PublishedSED

# At each of the three points, int64 indices of the survivors among the categories that enter it.
KeptSets = tuple[np.ndarray, np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Forced:
    """Keep the first `categories`, or all if there are fewer, whatever the votes."""

    categories: int

    def keep(self, votes: np.ndarray) -> np.ndarray:
        """See `Rejection.keep`."""
        return np.arange(min(self.categories, votes.shape[1]), dtype=np.int64)

    def sets(self, categories: int) -> KeptSets:
        """What it keeps of a vocabulary of so many."""
        count = min(self.categories, categories)
        return np.arange(count), np.arange(count), np.arange(count)


class Replay:
    """Keep the sets given, one a call; for one picture."""

    def __init__(self, sets: Sequence[np.ndarray]) -> None:
        self._left = iter(sets)

    def keep(self, votes: np.ndarray) -> np.ndarray:
        """See `Rejection.keep`."""
        return next(self._left)


class Recorder:
    """Another policy, with what it kept of one picture.

    Attributes:
        sets: one for each call so far.
    """

    def __init__(self, policy: Rejection) -> None:
        self._policy = policy
        self.sets: list[np.ndarray] = []

    def keep(self, votes: np.ndarray) -> np.ndarray:
        """See `Rejection.keep`."""
        self.sets.append(self._policy.keep(votes))
        return self.sets[-1]


OURS = "sed-trt"
BASELINE = "published"
# Those of the published network, in order; ours has no `guidance`.
STAGES = ("pixels", "image", "scout", "guidance", "decode1", "decode2", "decode3", "label")
AGAINST = (BASELINE, "published-compiled", "published-autocast", "monolithic")

Run = Callable[[np.ndarray, KeptSets], Labelled]


@dataclass(frozen=True)
class Subject:
    """What is measured and how.

    Attributes:
        bundle: its folder.
        checkpoint: the file that it was exported from; the baselines need it.
        backend: of the bundle.
        device: "cpu" or "cuda", of the baselines.
        threads: CPU threads of each; None is one per core.
        monolithic: the graph of the candidate of that name, where it was exported.
    """

    bundle: str
    checkpoint: str | None
    backend: str | None
    device: str
    threads: int | None
    monolithic: str | None = None


@dataclass(frozen=True, eq=False)
class Candidate:
    """Something that segments.

    Attributes:
        name: `OURS` or one of `AGAINST`.
        runs_on: the library and device.
        precision: "fp32", "fp16" or "bf16".
        with_vocabulary: gives the call that labels a picture, uint8 (H, W, 3), with sets kept at the three
            points. Candidates without rejection take no notice of those.
    """

    name: str
    runs_on: str
    precision: str
    with_vocabulary: Callable[[Vocabulary], Run]


def open_candidate(name: str, subject: Subject) -> Candidate:
    """Open one; for a baseline this is where PyTorch is imported.

    Raises:
        InputError: it is not there, or cannot run on this machine.
    """
    if name == OURS:
        return ours(Segmenter(subject.bundle, subject.backend, subject.threads))
    if name == "monolithic":
        return _monolithic(subject)
    from ...model import SED
    from ..baselines.published import PublishedSED

    assert subject.checkpoint is not None
    return published(name, PublishedSED(placed(SED.from_checkpoint(subject.checkpoint), subject)))


def ours(segmenter: Segmenter) -> Candidate:
    """The bundle's stages on their backend."""

    def with_vocabulary(vocabulary: Vocabulary) -> Run:
        def run(picture: np.ndarray, sets: KeptSets) -> Labelled:
            result = segmenter(picture, vocabulary, rejection=Replay(sets), short_side=None)
            return Labelled(result.labels, result.kept, result.timings)

        return run

    return Candidate(OURS, segmenter.backend, segmenter.bundle.manifest.precision, with_vocabulary)


def placed(model: "SED", subject: Subject) -> "SED":
    """A model on the device and threads of the baselines, with real FP32.

    Raises:
        InputError: PyTorch sees no GPU, and one was asked for.
    """
    import torch

    if subject.device == "cuda" and not torch.cuda.is_available():
        raise InputError(f"--device cuda: PyTorch {torch.__version__} sees no GPU; choose --device cpu")
    if subject.threads is not None:
        torch.set_num_threads(subject.threads)
    # TF32 would round the factors.
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    return model.to(subject.device)


def published(name: str, network: "PublishedSED") -> Candidate:
    """The published network in eager PyTorch, compiled, or under FP16 autocast.

    Raises:
        InputError: autocast, which only a GPU profits from, was asked for without one.
    """
    import torch

    device = network.device.type
    half = name == "published-autocast"
    if half and device != "cuda":
        raise InputError("published-autocast: FP16 autocast gains nothing on a CPU; it needs --device cuda")
    if name == "published-compiled":
        network.steps = {step: torch.compile(part) for step, part in network.steps.items()}

    def with_vocabulary(vocabulary: Vocabulary) -> Run:
        text = torch.from_numpy(vocabulary.text).to(device)

        def run(picture: np.ndarray, sets: KeptSets) -> Labelled:
            timings: dict[str, float] = {}

            @contextmanager
            def watch(step: str) -> Iterator[None]:
                _wait(device)
                started = time.perf_counter()
                yield
                _wait(device)
                timings[step] = 1000 * (time.perf_counter() - started)

            forced = [torch.from_numpy(kept).to(device) for kept in sets]
            with torch.autocast(device, dtype=torch.float16, enabled=half):
                labels, counts = network.segment(torch.from_numpy(picture), text, 8, forced, watch)
            return Labelled(labels.cpu().numpy(), counts, timings)

        return run

    mode = "compiled" if name == "published-compiled" else "eager"
    return Candidate(name, f"PyTorch {mode}, {device}", "fp16" if half else "fp32", with_vocabulary)


def _wait(device: str) -> None:
    import torch

    if device == "cuda":
        torch.cuda.synchronize()


def _monolithic(subject: Subject) -> Candidate:
    from ...engines.ort.session import CPU_PROVIDER, CUDA_PROVIDER, cuda_offered, library

    if subject.device == "cuda" and not cuda_offered():
        raise InputError("monolithic: this ONNX Runtime has no CUDA provider; install onnxruntime-gpu")
    assert subject.monolithic is not None
    providers = [CUDA_PROVIDER, CPU_PROVIDER] if subject.device == "cuda" else [CPU_PROVIDER]
    # With ONNX Runtime's own settings: ours are made for several sessions in one process.
    options = library().SessionOptions()
    if subject.threads is not None:
        options.intra_op_num_threads = subject.threads
    session = library().InferenceSession(subject.monolithic, options, providers=providers)

    def with_vocabulary(vocabulary: Vocabulary) -> Run:
        count = len(vocabulary)

        def run(picture: np.ndarray, sets: KeptSets) -> Labelled:
            (labels,) = session.run(["labels"], {"image": picture[None], "text": vocabulary.text})
            return Labelled(labels, (count, count, count), {})

        return run

    return Candidate("monolithic", f"ONNX Runtime, {subject.device}", "fp32", with_vocabulary)
