"""A bundle whose graphs hold a few bytes each, with the inputs and axes of a real one."""

from pathlib import Path

from sed_trt.bundle import (
    STAGES,
    TOKENIZER_FILE,
    Bundle,
    Manifest,
    Stage,
    TensorSpec,
    file_record,
    write_manifest,
)

_INPUTS: dict[str, tuple[TensorSpec, ...]] = {
    "text": (TensorSpec("tokens", "int64", ("N", 7)),),
    "pixels": (TensorSpec("image", "uint8", (1, "H", "W", 3)),),
    "image": (TensorSpec("pixels", "float32", ("B", 3, 64, 64)),),
    "scout": (TensorSpec("embed", "float32", (1, 8, 2, 2)), TensorSpec("text", "float32", ("T", 1, 8))),
    "decode1": (TensorSpec("text", "float32", ("T", 1, 8)), TensorSpec("kept0", "int64", ("K1",))),
    "decode2": (TensorSpec("x1", "float32", ("K1", 4, 4, 4)), TensorSpec("kept1", "int64", ("K2",))),
    "decode3": (TensorSpec("x2", "float32", ("K2", 4, 8, 8)), TensorSpec("kept2", "int64", ("K3",))),
    "label": (TensorSpec("logits", "float32", ("K3", 16, 16)), TensorSpec("rows", "float32", ("R",))),
}


def small_bundle(folder: Path, precision: str = "fp32") -> Bundle:
    """Write the bundle into a new folder and open it."""
    folder.mkdir()
    names = [*(f"{stage}.onnx" for stage in STAGES), TOKENIZER_FILE]
    for name in names:
        (folder / name).write_text(f"{name} in {precision}")
    manifest = Manifest(
        sed_trt="0.1.0",
        preset="sed-tiny",
        precision=precision,
        image_size=64,
        embed_dim=8,
        context_length=7,
        templates=("a photo of a {}.",),
        vote_ranks=8,
        stages={
            stage: Stage(f"{stage}.onnx", _INPUTS[stage], (TensorSpec("out", "float32", (1,)),))
            for stage in STAGES
        },
        files={name: file_record(folder / name) for name in names},
        checkpoint={"file": "sed-tiny.safetensors", "sha256": "00"},
        libraries={},
    )
    write_manifest(folder, manifest)
    return Bundle.open(folder)
