"""Exports without tracing, which takes most of their time."""

import shutil
from collections.abc import Collection, Mapping
from pathlib import Path

import pytest

from sed_trt.bundle import Bundle, Stage
from sed_trt.export.onnx_graph import write_graph
from sed_trt.export.stages import GraphSpec


def reuse_graphs(monkeypatch: pytest.MonkeyPatch, bundle: Path, traced: Collection[str] = ()) -> None:
    """Make `export_bundle` copy the graphs of `bundle`, except those of the stages `traced`."""
    stages = Bundle.open(bundle).manifest.stages

    def write_or_copy(spec: GraphSpec, path: Path, opset: int, metadata: Mapping[str, str]) -> Stage:
        if spec.name in traced:
            return write_graph(spec, path, opset, metadata)
        shutil.copyfile(bundle / path.name, path)
        return stages[spec.name]

    monkeypatch.setattr("sed_trt.export.export.write_graph", write_or_copy)
