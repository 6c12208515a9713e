"""What the latency benchmark compares: the baselines by name, kept sets to force, and what a run gives."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ...bundle import Manifest
from ...runtime import Rejection, Segmenter, Vocabulary
from ...stages import STAGES

OURS = "sed-trt"
# Libraries of the baselines, and how they run the network.
PYTORCH, ONNX_RUNTIME, OPENVINO = "PyTorch", "ONNX Runtime", "OpenVINO"
EAGER, COMPILED, ONE_GRAPH = "eager", "compiled", "one graph"


@dataclass(frozen=True)
class Baseline:
    """Something that a user would run instead of a bundle.

    Attributes:
        name: as `--against` takes it.
        library: that runs it.
        precision: "fp32", or the half precision of autocast or of the library's own conversion.
        mode: `EAGER` or `COMPILED`, the published network in PyTorch; or `ONE_GRAPH`, the published network
            as one ONNX graph that rejects nothing.
    """

    name: str
    library: str
    precision: str
    mode: str


BASELINES: Mapping[str, Baseline] = {
    each.name: each
    for each in (
        Baseline("published", PYTORCH, "fp32", EAGER),
        Baseline("published-autocast", PYTORCH, "fp16", EAGER),
        Baseline("published-autocast-bf16", PYTORCH, "bf16", EAGER),
        Baseline("published-compiled", PYTORCH, "fp32", COMPILED),
        Baseline("published-compiled-bf16", PYTORCH, "bf16", COMPILED),
        Baseline("monolithic", ONNX_RUNTIME, "fp32", ONE_GRAPH),
        Baseline("monolithic-openvino", OPENVINO, "fp32", ONE_GRAPH),
        Baseline("monolithic-openvino-bf16", OPENVINO, "bf16", ONE_GRAPH),
    )
}
# The one that labels are compared with, and the same in BF16.
BASELINE = "published"
BASELINE_BF16 = "published-autocast-bf16"

# The steps of the published network, which computes the cost guidance of all categories in one of its own;
# ours has the stages of the same names, and counts a gather as part of the stage that it is for.
GUIDANCE = "guidance"
STEPS = tuple(
    step
    for stage in (stage.name for stage in STAGES if not stage.device_only)
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
    """A bundle that is measured, and how the baselines beside it run.

    Attributes:
        bundle: its folder.
        checkpoint: the file that it was exported from; the baselines need it.
        backend: of the bundle.
        device: "cpu" or "cuda", of the baselines.
        threads: CPU threads of each candidate; None is one per core.
        one_graph: the graph of the baselines of that mode, where it was exported.
        cuda_graphs: of the bundle, see `Segmenter`.
    """

    bundle: str
    checkpoint: str | None
    backend: str | None
    device: str
    threads: int | None
    one_graph: str | None = None
    cuda_graphs: bool = False


@dataclass(frozen=True, eq=False)
class Candidate:
    """Something that segments.

    Attributes:
        name: of `BASELINES`; of a bundle `OURS`, and its folder and backend where there are several.
        runs_on: the backend, or the library with mode and device.
        precision: "fp32", "fp16", "bf16" or "int8".
        with_vocabulary: gives the call that labels an image, uint8 (H, W, 3), with sets kept at the three
            rejection points. Candidates without rejection ignore the sets. Raises InputError where so many
            categories need more memory than there is.
        is_ours: whether it is a bundle.
    """

    name: str
    runs_on: str
    precision: str
    with_vocabulary: Callable[[Vocabulary], Run]
    is_ours: bool = False


def ours(segmenter: Segmenter, name: str = OURS) -> Candidate:
    """The bundle's stages on their backend."""

    def with_vocabulary(vocabulary: Vocabulary) -> Run:
        def run(image: np.ndarray, sets: KeptSets) -> Outcome:
            # The baselines give labels alone.
            result = segmenter(image, vocabulary, rejection=Replay(sets), short_side=None, scores=False)
            return Outcome(result.labels, result.kept, result.timings)

        return run

    return Candidate(
        name, segmenter.backend, segmenter.bundle.manifest.precision, with_vocabulary, is_ours=True
    )


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
