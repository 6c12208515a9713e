"""Manifests whose stages are those of the table, for networks of any size."""

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from sed_trt.bundle import COMPUTE_DTYPES, Manifest, Stage, TensorSpec
from sed_trt.stages import COMPUTE, GPU_STAGES, STAGES, StageDefinition, TensorDefinition
from sed_trt.tests.fakes.engines import SIDE


def table_manifest(
    side: int,
    embed_dim: int,
    context_length: int,
    channels: int,
    precision: str = "fp32",
    templates: tuple[str, ...] = ("{}",),
    more_stages: tuple[StageDefinition, ...] = (),
) -> Manifest:
    """A manifest that fits the table of stages, and lists no files.

    Args:
        side: of the network's input, a multiple of 32.
        embed_dim: width of the CLIP embedding.
        context_length: tokens of a sentence.
        channels: of all guidance and features.
        precision: of the bundle.
        templates: of the prompts.
        more_stages: beside those that every bundle has.
    """
    sizes = {"L": context_length, "C": embed_dim, "P": len(templates), "S": side}
    sizes |= {"h": side // 32, "2h": side // 16, "4h": side // 8, "8h": side // 4}
    sizes |= dict.fromkeys(("G1", "G2", "G3", "D1", "D2", "E1", "E2"), channels)
    return Manifest(
        sed_trt="0.1.0",
        preset="sed-tiny",
        precision=precision,
        image_size=side,
        embed_dim=embed_dim,
        context_length=context_length,
        templates=templates,
        vote_ranks=8,
        stages={
            stage.name: Stage(
                f"{stage.name}.onnx",
                _tensors(stage.inputs, sizes, COMPUTE_DTYPES[precision]),
                _tensors(stage.outputs, sizes, COMPUTE_DTYPES[precision]),
            )
            for stage in (*STAGES, *more_stages)
        },
        files={},
        checkpoint={"file": "fake.safetensors", "sha256": "00"},
        libraries={"torch": "2.9"},
    )


def _tensors(
    definitions: tuple[TensorDefinition, ...], sizes: Mapping[str, int], compute: str
) -> tuple[TensorSpec, ...]:
    return tuple(
        TensorSpec(
            definition.name,
            compute if definition.dtype == COMPUTE else definition.dtype,
            tuple(sizes.get(str(size), size) for size in definition.shape),
        )
        for definition in definitions
    )


def fake_manifest() -> Manifest:
    """The manifest of a bundle whose stages are those of `fakes.engines`."""
    return _MANIFEST


def earlier_manifest() -> Manifest:
    """The same of a bundle of an earlier version, which has no stages of their own for GPUs."""
    return _EARLIER


_MANIFEST = table_manifest(SIDE, embed_dim=3, context_length=5, channels=1, more_stages=GPU_STAGES)
_EARLIER = table_manifest(SIDE, embed_dim=3, context_length=5, channels=1)


def with_other_guidance(bundle: Path, folder: Path) -> Path:
    """A copy whose manifest has a size that agrees with all its other fields, but not with the graphs."""
    shutil.copytree(bundle, folder)
    data = json.loads((folder / "manifest.json").read_text())
    for stage, side, index in (("image", "outputs", 1), ("decode1", "inputs", 3)):
        data["stages"][stage][side][index]["shape"][1] = 17
    (folder / "manifest.json").write_text(json.dumps(data))
    return folder


def without_stages(bundle: Path, folder: Path, stages: Sequence[StageDefinition]) -> Path:
    """A new folder with a bundle of an earlier version, which lacks `stages`; its graphs are links."""
    folder.mkdir()
    manifest = json.loads((bundle / "manifest.json").read_text())
    for stage in stages:
        del manifest["files"][manifest["stages"].pop(stage.name)["file"]]
    for file in manifest["files"]:
        (folder / file).symlink_to(bundle / file)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder
