"""What the latency benchmark compares, each behind one call: an image and kept sets in, labels out."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ...bundle import Manifest
from ...errors import InputError
from ...runtime import Rejection, Segmenter, Vocabulary
from ...stages import STAGE_NAMES

if TYPE_CHECKING:
    from ...model import SED
    from ..baselines import PublishedSED

OURS = "sed-trt"
BASELINE = "published"
MONOLITHIC = "monolithic"
AUTOCAST = {"published-autocast": "fp16", "published-autocast-bf16": "bf16"}
AGAINST = (BASELINE, "published-compiled", *AUTOCAST, MONOLITHIC)
# BF16 takes long on a CPU without instructions for it.
DEFAULT_AGAINST = tuple(name for name in AGAINST if AUTOCAST.get(name) != "bf16")

# The steps of the published network, which computes the cost guidance of all categories in one of its own;
# ours has the stages of the same names.
GUIDANCE = "guidance"
STEPS = tuple(
    step
    for stage in STAGE_NAMES
    if stage != "text"
    for step in ((stage, GUIDANCE) if stage == "scout" else (stage,))
)

# At each of the three rejection points, int64 indices of the survivors among the categories that enter it.
KeptSets = tuple[np.ndarray, np.ndarray, np.ndarray]


@dataclass(frozen=True, eq=False)
class Outcome:
    """What one call of a candidate gives.

    Attributes:
        labels: category indices, integers (H, W).
        kept: categories alive after each rejection point.
        timings: milliseconds by step, empty where the candidate has none.
    """

    labels: np.ndarray
    kept: tuple[int, ...]
    timings: Mapping[str, float]


Run = Callable[[np.ndarray, KeptSets], Outcome]


@dataclass(frozen=True)
class Forced:
    """Rejection policy that keeps the first `categories`, or all if there are fewer, whatever the votes."""

    categories: int

    def keep(self, votes: np.ndarray) -> np.ndarray:
        """See `Rejection.keep`."""
        return np.arange(min(self.categories, votes.shape[1]), dtype=np.int64)

    def sets(self, categories: int) -> KeptSets:
        """What it keeps of a vocabulary of `categories`."""
        count = min(self.categories, categories)
        return np.arange(count), np.arange(count), np.arange(count)


class Replay:
    """Rejection policy that keeps the given sets, one a call; for one image."""

    def __init__(self, sets: Sequence[np.ndarray]) -> None:
        self._left = iter(sets)

    def keep(self, votes: np.ndarray) -> np.ndarray:
        """See `Rejection.keep`."""
        return next(self._left)


class Recorder:
    """Another policy, with a record of what it kept of one image.

    Attributes:
        sets: what it kept, one for each call so far.
    """

    def __init__(self, policy: Rejection) -> None:
        self._policy = policy
        self.sets: list[np.ndarray] = []

    def keep(self, votes: np.ndarray) -> np.ndarray:
        """See `Rejection.keep`."""
        self.sets.append(self._policy.keep(votes))
        return self.sets[-1]


@dataclass(frozen=True)
class Subject:
    """The bundle that is measured, and how the candidates run.

    Attributes:
        bundle: its folder.
        checkpoint: the file that it was exported from; the baselines need it.
        backend: of the bundle.
        device: "cpu" or "cuda", of the baselines.
        threads: CPU threads of each candidate; None is one per core.
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
        precision: "fp32", "fp16", "bf16" or "int8".
        with_vocabulary: gives the call that labels an image, uint8 (H, W, 3), with sets kept at the three
            rejection points. Candidates without rejection ignore the sets.
    """

    name: str
    runs_on: str
    precision: str
    with_vocabulary: Callable[[Vocabulary], Run]


def open_candidate(name: str, subject: Subject) -> Candidate:
    """Open a candidate; PyTorch is imported here if the candidate needs it.

    Raises:
        InputError: it is not there, or cannot run on this machine.
    """
    if name == OURS:
        return ours(Segmenter(subject.bundle, subject.backend, subject.threads))
    if name == MONOLITHIC:
        return _monolithic(subject)
    from ...model import SED
    from ..baselines import PublishedSED

    assert subject.checkpoint is not None
    return published(name, PublishedSED(_prepared(SED.from_checkpoint(subject.checkpoint), subject)))


def ours(segmenter: Segmenter) -> Candidate:
    """The bundle's stages on their backend."""

    def with_vocabulary(vocabulary: Vocabulary) -> Run:
        def run(image: np.ndarray, sets: KeptSets) -> Outcome:
            result = segmenter(image, vocabulary, rejection=Replay(sets), short_side=None)
            return Outcome(result.labels, result.kept, result.timings)

        return run

    return Candidate(OURS, segmenter.backend, segmenter.bundle.manifest.precision, with_vocabulary)


def _prepared(model: "SED", subject: Subject) -> "SED":
    """A model on the device and threads of the baselines, with products in real FP32.

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
    """The published network in eager PyTorch, compiled, or under autocast.

    Raises:
        InputError: FP16 autocast, which only a GPU gains from, was asked for without one.
    """
    import torch

    device = network.device.type
    precision = AUTOCAST.get(name, "fp32")
    if precision == "fp16" and device != "cuda":
        raise InputError(f"{name}: FP16 autocast gains nothing on a CPU; it needs --device cuda")
    dtype = torch.bfloat16 if precision == "bf16" else torch.float16
    if name == "published-compiled":
        network.steps = {step: torch.compile(part) for step, part in network.steps.items()}

    def with_vocabulary(vocabulary: Vocabulary) -> Run:
        text = torch.from_numpy(vocabulary.text).to(device)

        def run(image: np.ndarray, sets: KeptSets) -> Outcome:
            timings: dict[str, float] = {}

            @contextmanager
            def watch(step: str) -> Iterator[None]:
                _synchronize(device)
                started = time.perf_counter()
                yield
                _synchronize(device)
                timings[step] = 1000 * (time.perf_counter() - started)

            forced = [torch.from_numpy(kept).to(device) for kept in sets]
            with torch.autocast(device, dtype=dtype, enabled=name in AUTOCAST):
                labels, counts = network.segment(torch.from_numpy(image), text, 8, forced, watch)
            return Outcome(labels.cpu().numpy(), counts, timings)

        return run

    mode = "compiled" if name == "published-compiled" else "eager"
    return Candidate(name, f"PyTorch {mode}, {device}", precision, with_vocabulary)


def _synchronize(device: str) -> None:
    """Wait until the device has done all work."""
    import torch

    if device == "cuda":
        torch.cuda.synchronize()


def _monolithic(subject: Subject) -> Candidate:
    """The graph `Subject.monolithic` on ONNX Runtime.

    Raises:
        InputError: it shall run on the GPU, which this ONNX Runtime cannot use.
    """
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

        def run(image: np.ndarray, sets: KeptSets) -> Outcome:
            (labels,) = session.run(["labels"], {"image": image[None], "text": vocabulary.text})
            return Outcome(labels, (count, count, count), {})

        return run

    return Candidate(MONOLITHIC, f"ONNX Runtime, {subject.device}", "fp32", with_vocabulary)


# Weight of what the templates of one category have in common, against 1 for what each has alone.
_SHARED = 2.0


def random_text(categories: int, templates: int, width: int) -> np.ndarray:
    """Unit vectors, float32 (categories, templates, width); those of one category lie near each other."""
    random = np.random.default_rng(0)
    text = random.standard_normal((categories, templates, width), dtype=np.float32)
    text += _SHARED * random.standard_normal((categories, 1, width), dtype=np.float32)
    unit: np.ndarray = text / np.linalg.norm(text, axis=-1, keepdims=True)
    return unit


def random_vocabulary(manifest: Manifest, count: int) -> Vocabulary:
    """`count` categories with random embeddings of the bundle's shape."""
    names = tuple(f"category {number}" for number in range(count))
    return Vocabulary(names, random_text(count, len(manifest.templates), manifest.embed_dim))
