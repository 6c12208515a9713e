"""Builds for the GPU in this machine, and the layers of their engines."""

import json
import shutil
from pathlib import Path

import pytest

from sed_trt.bundle import Bundle
from sed_trt.cli.main import main
from sed_trt.engines.build.build import build_engines
from sed_trt.engines.device.cuda import find_gpu
from sed_trt.engines.store import find_built
from sed_trt.engines.targets import TENSORRT_BACKENDS
from sed_trt.engines.trt.library import load_library
from sed_trt.errors import InputError


def unavailable_reason(backend: str) -> str | None:
    """Why nothing can be built on a GPU here, or None."""
    try:
        load_library(backend)
        find_gpu()
    except InputError as error:
        return str(error)
    return None


@pytest.mark.parametrize(
    "backend",
    [
        pytest.param(backend, marks=pytest.mark.skipif(reason is not None, reason=str(reason)))
        for backend in TENSORRT_BACKENDS
        for reason in [unavailable_reason(backend)]
    ],
)
def test_engines_for_this_gpu(
    backend: str, tiny_bundle_fp16: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = shutil.copytree(tiny_bundle_fp16, tmp_path / "bundle")
    bundle = Bundle.open(folder)
    done = build_engines(bundle, backend, "current")
    assert find_built(bundle, backend, find_gpu()) == done.engines
    assert main(["inspect", str(folder), "--engine", "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["warnings"] == []
    layers = content["engines"][0]["engine_layers"]
    assert layers.keys() == set(done.engines.stages)
    assert layers["image"].get("HALF", 0) > layers["image"].get("FLOAT", 0)
