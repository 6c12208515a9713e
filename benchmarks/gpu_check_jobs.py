"""What the check of a machine measures, most valuable first."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..engines.targets import TENSORRT_BACKENDS

PYTORCH_BACKENDS = ("pytorch-cpu", "pytorch-cuda")


@dataclass(frozen=True)
class Model:
    """A network and the pictures it is given.

    Attributes:
        name: as results call it.
        preset: its preset.
        checkpoint: its file; None means random weights and random text embeddings.
        scenes: how many test scenes.
        size: their side in pixels.
        categories: size of the vocabulary.
        seconds: most that one candidate may take.
    """

    name: str
    preset: str
    checkpoint: str | None
    scenes: int
    size: int
    categories: int
    seconds: float


@dataclass(frozen=True)
class Job:
    """Work for a process of its own.

    Attributes:
        kind: "export", "pytorch" or "engines".
        model: the network.
        precision: "fp32", "fp16" or "bf16".
        backend: of `BACKENDS` or `PYTORCH_BACKENDS`; "" for an export.
        target: what TensorRT engines are built for.
        reference: whether the others of the model are compared with it.
    """

    kind: str
    model: Model
    precision: str
    backend: str = ""
    target: str | None = None
    reference: bool = False

    @property
    def name(self) -> str:
        """Unique among the jobs of a check, for example "sed-tiny/fp16/tensorrt-rtx/sm86"."""
        return "/".join(
            filter(None, (self.model.name, self.precision, self.backend or self.kind, self.target))
        )

    @property
    def builds(self) -> bool:
        """Whether engines are built before they can be opened."""
        return self.backend in TENSORRT_BACKENDS

    def bundle(self, work: Path) -> Path:
        """The bundle that it exports or runs, in the folder of the check."""
        return work / "bundles" / f"{self.model.name}-{self.precision}"

    def reference_file(self, work: Path) -> Path:
        """Where the labels of the reference are."""
        return work / f"{self.model.name}-reference.npz"

    def folder(self, work: Path) -> Path:
        """Its own folder."""
        return job_folder(work, self.name)


def job_folder(work: Path, name: str) -> Path:
    """The folder of the process of this name."""
    return work / "jobs" / name.replace("/", "_")


def plan(tiny: Model, random: Model | None, gpu: bool, torch_cuda: bool) -> list[Job]:
    """All jobs in order; `gpu` and `torch_cuda` say whether there is a GPU and whether PyTorch can use it.

    What needs a GPU stays in where there is none, to say why it does not run.
    """
    rtx, current, full = ("tensorrt-rtx", "portable"), ("tensorrt-rtx", "current"), ("tensorrt", "current")
    cuda, cpu = ("onnxruntime-cuda", None), ("onnxruntime", None)
    named = [("tensorrt-rtx", "sm86"), ("tensorrt-rtx", "sm80")]
    jobs = [
        Job("pytorch", tiny, "fp32", "pytorch-cpu", reference=True),
        Job("export", tiny, "fp16"),
        *_engines(tiny, "fp16", [rtx, current]),
        *(Job("pytorch", tiny, precision, "pytorch-cuda") for precision in ("fp32", "fp16")),
        *_engines(tiny, "fp16", [full, cuda, *named]),
        Job("export", tiny, "fp32"),
        *_engines(tiny, "fp32", [cpu, rtx, current, full, cuda]),
    ]
    if random is not None:
        reference = "pytorch-cuda" if torch_cuda else "pytorch-cpu"
        jobs += [
            Job("pytorch", random, "fp32", reference, reference=True),
            Job("pytorch", random, "fp16", "pytorch-cuda"),
            Job("export", random, "fp16"),
            *_engines(random, "fp16", [rtx, current, full, cuda]),
        ]
    jobs += [*_engines(tiny, "fp16", [cpu]), *_engines(tiny, "fp32", named)]
    if gpu:
        jobs += [Job("export", tiny, "bf16"), *_engines(tiny, "bf16", [rtx, current, full, cuda])]
    if random is not None:
        jobs += _engines(random, "fp16", [cpu])
    return jobs


def selected(jobs: Sequence[Job], only: Sequence[str]) -> list[Job]:
    """The candidates whose name holds a text of `only`, with the references and exports that they need."""
    if not only:
        return list(jobs)
    chosen = [job for job in jobs if job.kind != "export" and any(text in job.name for text in only)]
    models = {job.model for job in chosen}
    bundles = {(job.model, job.precision) for job in chosen if job.kind == "engines"}
    return [
        job
        for job in jobs
        if job in chosen
        or (job.reference and job.model in models)
        or (job.kind == "export" and (job.model, job.precision) in bundles)
    ]


def _engines(model: Model, precision: str, kinds: Sequence[tuple[str, str | None]]) -> list[Job]:
    return [Job("engines", model, precision, backend, target) for backend, target in kinds]
