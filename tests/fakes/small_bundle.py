"""A bundle whose graphs hold a few bytes each, with the inputs and outputs of a real one."""

from dataclasses import replace
from pathlib import Path

from sed_trt.bundle import TOKENIZER_FILE, Bundle, file_record, write_manifest
from sed_trt.stages import STAGE_NAMES
from sed_trt.tests.fakes.manifest import table_manifest


def small_bundle(folder: Path, precision: str = "fp32") -> Bundle:
    """Write the bundle into a new folder and open it."""
    folder.mkdir()
    names = [*(f"{stage}.onnx" for stage in STAGE_NAMES), TOKENIZER_FILE]
    for name in names:
        (folder / name).write_text(f"{name} in {precision}")
    templates = ("a photo of a {}.", "the {}")
    manifest = table_manifest(64, 8, 7, 4, precision, templates)
    files = {name: file_record(folder / name) for name in names}
    write_manifest(folder, replace(manifest, files=files))
    return Bundle.open(folder)
