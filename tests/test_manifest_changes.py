"""Many random changes to the manifest of a real bundle: each works or ends in one line."""

import functools
import os
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sed_trt.bundle import Bundle, Manifest, Stage, TensorSpec
from sed_trt.engines.ort import cpu
from sed_trt.errors import InputError
from sed_trt.runtime import Segmenter
from sed_trt.tests.fakes.json_changes import changed

CHANGES = 700
PROVIDERS = (cpu.CPU_PROVIDER,)


@pytest.fixture
def folder(tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """sed-tiny, whose manifest may be changed. Sessions are opened once for all tests of a graph."""
    folder = tmp_path / "bundle"
    folder.mkdir()
    for file in tiny_bundle.iterdir():
        if file.is_file():
            os.link(file, folder / file.name)
    # The link to the manifest must not lead to the bundle of other tests.
    (folder / "manifest.json").unlink()
    (folder / "manifest.json").write_bytes((tiny_bundle / "manifest.json").read_bytes())
    open_session = functools.cache(cpu.open_session)
    monkeypatch.setattr(
        cpu, "open_session", lambda model, file, threads, _: open_session(model, file, threads, PROVIDERS)
    )
    return folder


def what_counts(manifest: Manifest) -> Manifest:
    """The manifest without what nothing depends on: provenance, and the names of dynamic axes."""

    def nameless(tensors: tuple[TensorSpec, ...]) -> tuple[TensorSpec, ...]:
        return tuple(
            replace(tensor, shape=tuple("?" if isinstance(size, str) else size for size in tensor.shape))
            for tensor in tensors
        )

    stages = {
        name: Stage(stage.file, nameless(stage.inputs), nameless(stage.outputs))
        for name, stage in manifest.stages.items()
    }
    provenance: dict[str, Any] = {"sed_trt": "", "preset": "", "libraries": {}, "checkpoint": {}}
    return replace(manifest, stages=stages, **provenance)


def test_every_change_works_or_ends_in_one_line(folder: Path) -> None:
    original = (folder / "manifest.json").read_text()
    image = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    expected = Segmenter(folder, "onnxruntime")(image, ["sky", "tree"])
    known = [what_counts(Bundle.open(folder).manifest)]
    outcomes: Counter[str] = Counter()
    for seed in range(CHANGES):
        text, changes = changed(seed, original)
        (folder / "manifest.json").write_text(text)
        try:
            segmenter = Segmenter(folder, "onnxruntime")
            counts = what_counts(segmenter.bundle.manifest)
            # A manifest that says the same as one before gives the same result.
            if counts in known:
                outcomes["the same"] += 1
                continue
            result = segmenter(image, ["sky", "tree"])
            known.append(counts)
            outcomes["works"] += 1
            assert result.labels.shape == expected.labels.shape
        except InputError as error:
            assert "\n" not in str(error), (seed, changes)
            assert str(error).startswith(f"{folder}"), (seed, changes)
            outcomes["refused"] += 1
        except Exception as error:
            pytest.fail(f"seed {seed}, {changes}: {type(error).__name__}: {error}")
    assert outcomes["refused"] > CHANGES / 2
    assert outcomes["works"] and outcomes["the same"]
