"""The export of a checkpoint: graphs, tokenizer, manifest, verification; a complete bundle or none."""

import hashlib
import shutil
import uuid
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path

import numpy as np
import onnxruntime
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

from .. import __version__
from ..bundle import MANIFEST_FILE, TOKENIZER_FILE, Bundle, Manifest, file_record, write_manifest
from ..errors import InputError
from ..files import exists, is_file, is_folder, resolved
from ..model import SED
from ..model.text import tokenizer
from ..stages import VOTE_RANKS
from .onnx_graph import write_graph
from .precision import OPSETS, check_precision, lower_spec, stage_precision
from .quantization import calibration_pixels, quantize_graph
from .stages import GraphSpec, graph_specs
from .verification import Check, derive_inputs, emulate_half, photo, verification_inputs, verify_stage

LIBRARIES = ("torch", "onnx", "onnxscript", "open_clip_torch", "timm", "tokenizers", "numpy")
# open_clip's pattern of what it tokenizes separately: contractions, words, digits, runs of anything else.
WORD_PATTERN = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"

Progress = Callable[[str, int, int], None]


class VerificationError(InputError):
    """An exported stage differs from PyTorch by more than its limit.

    Attributes:
        checks: of all stages.
    """

    def __init__(self, message: str, checks: list[Check]) -> None:
        super().__init__(message)
        self.checks = checks


def export_bundle(
    checkpoint: str | Path,
    output: str | Path,
    preset: str | None = None,
    progress: Progress | None = None,
    precision: str = "fp32",
    calibration: Sequence[np.ndarray] | None = None,
) -> list[Check]:
    """Export a checkpoint and verify each stage against PyTorch in FP32 on a photo.

    Args:
        checkpoint: a published `.pth` or a `.safetensors` of this package.
        output: the bundle's folder, or a link to it; an existing bundle is replaced once the new one is
            complete.
        preset: name of the preset; None means read from the checkpoint.
        progress: called with (current step, steps done, steps in all).
        precision: "fp32", "fp16", "bf16" or "int8", which is for the CPU.
        calibration: for "int8", images, uint8 (H, W, 3), of the kind that will be segmented; the ranges of
            the 8-bit values are taken from them. None is the photo of the verification.

    Returns:
        The checks, all passed.

    Raises:
        InputError: the checkpoint or the precision is bad, or the folder contains something other than a
            bundle, or cannot be written.
        VerificationError: a stage is over its limit; no bundle is left.
    """
    check_precision(precision)
    if calibration is not None and precision != "int8":
        raise InputError(f"calibration: {precision} has no ranges to calibrate; leave it out or choose int8")
    output = resolved(Path(output))
    check_folder(output)
    report = progress or (lambda _step, _done, _total: None)
    model = SED.from_checkpoint(checkpoint, preset)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        building = output.with_name(f".{uuid.uuid4().hex}")
        building.mkdir()
    except OSError as error:
        raise InputError(f"{output}: cannot be written ({error.strerror}); choose another folder") from error
    try:
        specs = graph_specs(model)
        images = [photo()] if calibration is None else calibration
        write_files(model, Path(checkpoint), specs, precision, building, report, images)
        checks = verify(model, specs, Bundle.open(building), report)
        put_in_place(building, output)
    except OSError as error:
        raise InputError(
            f"{output}: cannot be written ({error.strerror or error}); free space or choose another folder"
        ) from error
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return checks


def check_folder(output: Path) -> None:
    """Refuse a folder that cannot be replaced, or contains something other than a bundle.

    Args:
        output: absolute and free of links.

    Raises:
        InputError: it is such a folder, or a file.
    """
    if Path.cwd().is_relative_to(output):
        raise InputError(
            f"{output}: is the current folder or contains it; name another folder for the bundle"
        )
    try:
        # Found out before the work: a name that is too long, a link to itself, a file as a parent.
        output.stat()
    except FileNotFoundError:
        return
    except OSError as error:
        raise InputError(f"{output}: cannot be written ({error.strerror}); choose another folder") from error
    if not is_folder(output):
        raise InputError(f"{output}: is a file; name a folder for the bundle")
    try:
        has_content = any(output.iterdir())
    except OSError as error:
        raise InputError(f"{output}: cannot be listed ({error.strerror}); name another folder") from error
    if has_content and not is_file(output / MANIFEST_FILE):
        raise InputError(
            f"{output}: is not empty and contains no bundle; name another folder or empty this one"
        )


def write_files(
    model: SED,
    checkpoint: Path,
    specs: list[GraphSpec],
    precision: str,
    folder: Path,
    report: Progress,
    calibration: Sequence[np.ndarray],
) -> None:
    """Write the graphs, the tokenizer and the manifest into `folder`; see `export_bundle`."""
    stages = {}
    common = {"sed_trt": __version__, "preset": model.preset.name}
    for done, spec in enumerate(specs):
        report(f"exporting {spec.name}", done, 2 * len(specs))
        # Not the bundle's: an FP32 stage is the same file in every bundle, so that bundles share the text
        # embeddings that are cached by its hash.
        lowest = stage_precision(spec.stage, precision)
        properties = {**common, "precision": lowest, "stage": spec.name}
        path = folder / f"{spec.name}.onnx"
        stages[spec.name] = write_graph(lower_spec(spec, lowest), path, OPSETS[lowest], properties)
        if lowest == "int8":
            report(f"calibrating {spec.name}", done, 2 * len(specs))
            pixels = calibration_pixels(calibration, model.preset.image_size)
            quantize_graph(path, spec, pixels, properties)
    write_tokenizer(folder / TOKENIZER_FILE)
    with checkpoint.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    manifest = Manifest(
        sed_trt=__version__,
        preset=model.preset.name,
        precision=precision,
        image_size=model.preset.image_size,
        embed_dim=model.preset.embed_dim,
        context_length=model.clip.context_length,
        templates=model.templates,
        vote_ranks=VOTE_RANKS,
        stages=stages,
        files={path.name: file_record(path) for path in sorted(folder.iterdir())},
        checkpoint={"file": checkpoint.name, "sha256": digest},
        # The package onnxruntime may come from the distribution onnxruntime-gpu.
        libraries={"onnxruntime": onnxruntime.__version__}
        | {name: metadata.version(name) for name in LIBRARIES},
    )
    write_manifest(folder, manifest)


def verify(model: SED, specs: list[GraphSpec], bundle: Bundle, report: Progress) -> list[Check]:
    """Check every stage of a bundle against the FP32 `specs`.

    Raises:
        VerificationError: a stage is over its limit.
    """
    tensors = verification_inputs(model)
    checks: list[Check] = []
    with emulate_half(bundle) as runnable:
        for done, spec in enumerate(specs, start=len(specs)):
            report(f"verifying {spec.name}", done, 2 * len(specs))
            derive_inputs(spec, tensors, model)
            precision = stage_precision(spec.stage, bundle.manifest.precision)
            checks += verify_stage(spec, runnable, tensors, precision)
    report("done", 2 * len(specs), 2 * len(specs))
    failed = [check for check in checks if not check.passed]
    if failed:
        worst = ", ".join(
            f"{check.stage}/{check.output} by {check.error:.2g} (limit {check.limit:.2g})" for check in failed
        )
        raise VerificationError(
            f"{bundle.manifest.checkpoint['file']}: exported stages differ from PyTorch: {worst}; no bundle "
            "is written; look for extreme weights, export with --precision fp32, or try other versions of "
            "torch, onnx or onnxruntime",
            checks,
        )
    return checks


def put_in_place(complete: Path, output: Path) -> None:
    """Move a complete bundle to its folder, replacing an old bundle there.

    Raises:
        OSError: it cannot be moved; the old bundle is left.
    """
    if not exists(output):
        complete.rename(output)
        return
    old = complete.with_name(f"{complete.name}.old")
    output.rename(old)
    try:
        complete.rename(output)
    except OSError:
        old.rename(output)
        raise
    shutil.rmtree(old, ignore_errors=True)


def write_tokenizer(path: Path) -> None:
    """Write open_clip's tokenizer as `tokenizer.json`, which the runtime reads without open_clip.

    Unlike open_clip's it repairs neither mojibake nor HTML entities: `runtime.vocabulary.clean` does.
    """
    source = tokenizer()
    merges = sorted(source.bpe_ranks, key=source.bpe_ranks.__getitem__)
    start, end = (source.decoder[token] for token in (source.sot_token_id, source.eot_token_id))
    result = Tokenizer(models.BPE(vocab=source.encoder, merges=merges, end_of_word_suffix="</w>"))
    result.normalizer = normalizers.Sequence(
        [normalizers.Replace(Regex(r"\s+"), " "), normalizers.Strip(), normalizers.Lowercase()]
    )
    result.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORD_PATTERN), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    result.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in (start, end)])
    result.post_processor = processors.TemplateProcessing(
        single=f"{start} $A {end}",
        special_tokens=[(start, source.sot_token_id), (end, source.eot_token_id)],
    )
    result.save(str(path))
