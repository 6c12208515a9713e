"""Opens the candidates of the latency benchmark: bundles, and each baseline on its library."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ...errors import InputError
from ...model.presets import Preset
from ...runtime import Segmenter, Vocabulary
from ..results_file import available_memory, has_amx_bf16
from .candidates import (
    BASELINES,
    COMPILED,
    ONE_GRAPH,
    ONNX_RUNTIME,
    OPENVINO,
    OURS,
    Baseline,
    Candidate,
    KeptSets,
    Outcome,
    Run,
    Subject,
    ours,
)

if TYPE_CHECKING:
    from ...model import SED

# Kernels that `torch.compile` may make of one function: `stage` is compiled for three stages in two
# precisions, and again where the vocabulary has another size. PyTorch runs eagerly beyond its limit of 8.
COMPILED_KERNELS = 64
# Names of OpenVINO's hint for the precision that it computes in; its default follows the processor.
OPENVINO_PRECISIONS = {"fp32": "f32", "bf16": "bf16"}
# What one graph takes for each category, in FP32 maps of the hidden layer of the last decoder stage: measured
# with sed-b and 150 categories. ONNX Runtime's arena doubles as it grows.
MAPS_OF_A_CATEGORY = {ONNX_RUNTIME: 9.5, OPENVINO: 6.0}
# Memory to leave to other processes and candidates, bytes.
RESERVE = 2 << 30
_GIB = 2**30

# Runs one graph on an image, uint8 (1, H, W, 3), and embeddings, float32 (T, P, C); gives labels (H, W).
_Label = Callable[[np.ndarray, np.ndarray], np.ndarray]


def by_default(device: str) -> tuple[list[str], dict[str, str]]:
    """The baselines that are worth running where nobody names any, and why the others are not.

    Args:
        device: of the baselines, "cpu" or "cuda".
    """
    reasons = {name: _without_gain(baseline, device) for name, baseline in BASELINES.items()}
    chosen = [name for name, reason in reasons.items() if reason is None]
    return chosen, {name: reason for name, reason in reasons.items() if reason is not None}


def _without_gain(baseline: Baseline, device: str) -> str | None:
    """Why a baseline is left out unless it is asked for; None where it is not."""
    if device == "cpu" and baseline.precision == "bf16" and not has_amx_bf16():
        return (
            "this processor has no AMX for BF16, or the system does not tell, and without it BF16 is slower "
            "than FP32; name it with --against to run it nevertheless"
        )
    return _impossible(baseline, device)


def _impossible(baseline: Baseline, device: str) -> str | None:
    """Why a baseline cannot run on a device; None where it can, as far as that shows without opening it."""
    if device == "cpu" and baseline.precision == "fp16":
        return "FP16 autocast gains nothing on a CPU; it needs --device cuda"
    if device == "cuda" and baseline.library == OPENVINO:
        return "OpenVINO runs on the CPU; it needs --device cpu"
    return None


def open_candidate(name: str, subject: Subject) -> Candidate:
    """Open a bundle, `OURS`, or a baseline; PyTorch is imported here if the candidate needs it.

    Raises:
        InputError: it is not there, or cannot run on this machine.
    """
    if name == OURS:
        return ours(
            Segmenter(subject.bundle, subject.backend, subject.threads, cuda_graphs=subject.cuda_graphs)
        )
    return BaselineOpener(subject).open(name)


class BaselineOpener:
    """Opens baselines on the weights of one checkpoint, which those in PyTorch share."""

    def __init__(self, subject: Subject) -> None:
        self._subject = subject

    def open(self, name: str) -> Candidate:
        """A baseline of `BASELINES`.

        Raises:
            InputError: its library is not there, or it cannot run on this machine.
        """
        baseline = BASELINES[name]
        reason = _impossible(baseline, self._subject.device)
        if reason is not None:
            raise InputError(f"{name}: {reason}")
        if baseline.mode != ONE_GRAPH:
            return published(baseline, self._model)
        assert self._subject.one_graph is not None
        return _OPEN_GRAPH[baseline.library](baseline, self._subject)

    @cached_property
    def _model(self) -> "SED":
        """The model on the device and threads of the baselines, with products in real FP32."""
        import torch

        from ...model import SED

        subject = self._subject
        assert subject.checkpoint is not None
        if subject.device == "cuda" and not torch.cuda.is_available():
            raise InputError(f"--device cuda: PyTorch {torch.__version__} sees no GPU; choose --device cpu")
        if subject.threads is not None:
            torch.set_num_threads(subject.threads)
        # TF32 would round the factors.
        torch.set_float32_matmul_precision("highest")
        torch.backends.cudnn.allow_tf32 = False
        return SED.from_checkpoint(subject.checkpoint).to(subject.device)


def published(baseline: Baseline, model: "SED") -> Candidate:
    """The published network in PyTorch on the weights and device of a model: eager or compiled."""
    import torch

    from ..baselines import PublishedSED

    network = PublishedSED(model)
    device = network.device.type
    dtype = torch.bfloat16 if baseline.precision == "bf16" else torch.float16
    if baseline.mode == COMPILED:
        torch._dynamo.config.recompile_limit = COMPILED_KERNELS
        # A time of the eager network must not pass for one of the compiled network.
        torch._dynamo.config.fail_on_recompile_limit_hit = True
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
            with torch.autocast(device, dtype=dtype, enabled=baseline.precision != "fp32"):
                labels, counts = network.segment(torch.from_numpy(image), text, 8, forced, watch)
            return Outcome(labels.cpu().numpy(), counts, timings)

        return run

    runs_on = f"{baseline.library} {baseline.mode}, {device}"
    return Candidate(baseline.name, runs_on, baseline.precision, with_vocabulary)


def _synchronize(device: str) -> None:
    """Wait until the device has done all work."""
    import torch

    if device == "cuda":
        torch.cuda.synchronize()


def export_one_graph(checkpoint: str, size: int, folder: Path) -> str:
    """Write the graph of the baselines of the mode `ONE_GRAPH`; gives its path.

    Args:
        checkpoint: with its weights.
        size: side of its images in pixels.
        folder: where to.
    """
    from ...model import SED
    from ..baselines import export_monolithic

    file = folder / "monolithic.onnx"
    export_monolithic(SED.from_checkpoint(checkpoint), size, file)
    return str(file)


def check_memory(baseline: Baseline, preset: Preset, categories: int, free: int | None) -> None:
    """Refuse what one graph cannot hold, since the system ends a process that takes more than there is.

    Args:
        baseline: of the mode `ONE_GRAPH`.
        preset: of the network.
        categories: size of the vocabulary, all of which go through every stage.
        free: bytes of memory that can be taken; None where the system does not tell.

    Raises:
        InputError: so many categories need more.
    """
    # The hidden layer of a ConvNeXt block is four times as wide as its input.
    values = 4 * preset.decoder_widths[2] * (4 * preset.grid) ** 2
    item = np.dtype(np.float32).itemsize
    needed = RESERVE + MAPS_OF_A_CATEGORY[baseline.library] * categories * values * item
    if free is not None and needed > free:
        raise InputError(
            f"{baseline.name}: with {categories} categories in every stage it needs {needed / _GIB:.0f} GiB, "
            f"{free / _GIB:.0f} GiB are free; give a smaller --vocabulary-size"
        )


def _graph_candidate(baseline: Baseline, subject: Subject, runs_on: str, label: _Label) -> Candidate:
    """The candidate of one graph, which `label` runs."""
    from ...bundle import Bundle
    from ...model.presets import preset_named

    preset = preset_named(Bundle.open(subject.bundle).manifest.preset)

    def with_vocabulary(vocabulary: Vocabulary) -> Run:
        count = len(vocabulary)
        if subject.device == "cpu":
            check_memory(baseline, preset, count, available_memory())

        def run(image: np.ndarray, sets: KeptSets) -> Outcome:
            return Outcome(label(image[None], vocabulary.text), (count, count, count), {})

        return run

    return Candidate(baseline.name, runs_on, baseline.precision, with_vocabulary)


def _on_onnxruntime(baseline: Baseline, subject: Subject) -> Candidate:
    """The graph on ONNX Runtime.

    Raises:
        InputError: it shall run on the GPU, which this ONNX Runtime cannot use.
    """
    from ...engines.ort.session import CPU_PROVIDER, CUDA_PROVIDER, cuda_offered, library

    if subject.device == "cuda" and not cuda_offered():
        raise InputError(f"{baseline.name}: this ONNX Runtime has no CUDA provider; install onnxruntime-gpu")
    providers = [CUDA_PROVIDER, CPU_PROVIDER] if subject.device == "cuda" else [CPU_PROVIDER]
    # With ONNX Runtime's own settings: ours are made for several sessions in one process.
    options = library().SessionOptions()
    if subject.threads is not None:
        options.intra_op_num_threads = subject.threads
    session = library().InferenceSession(subject.one_graph, options, providers=providers)

    def label(image: np.ndarray, text: np.ndarray) -> np.ndarray:
        labels: np.ndarray = session.run(["labels"], {"image": image, "text": text})[0]
        return labels

    return _graph_candidate(baseline, subject, f"{ONNX_RUNTIME}, {subject.device}", label)


def _on_openvino(baseline: Baseline, subject: Subject) -> Candidate:
    """The graph on OpenVINO's CPU plugin, with its own settings but the precision.

    Raises:
        InputError: OpenVINO is missing or broken.
    """
    from ...engines.openvino.library import DEVICE, core

    config: dict[str, str | int] = {"INFERENCE_PRECISION_HINT": OPENVINO_PRECISIONS[baseline.precision]}
    if subject.threads is not None:
        config["INFERENCE_NUM_THREADS"] = subject.threads
    model = core().read_model(subject.one_graph)
    request = core().compile_model(model, DEVICE, config).create_infer_request()

    def label(image: np.ndarray, text: np.ndarray) -> np.ndarray:
        request.infer({"image": image, "text": text}, share_inputs=True)
        labels: np.ndarray = request.get_tensor("labels").data.copy()
        return labels

    return _graph_candidate(baseline, subject, f"{OPENVINO}, {subject.device}", label)


_OPEN_GRAPH = {ONNX_RUNTIME: _on_onnxruntime, OPENVINO: _on_openvino}
