"""The baselines of the latency benchmark: which run where, what they need, and that they label alike."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from sed_trt.benchmarks import results_file
from sed_trt.benchmarks.results_file import available_memory, has_amx_bf16
from sed_trt.benchmarks.speed import opening
from sed_trt.benchmarks.speed.candidates import (
    BASELINES,
    COMPILED,
    ONE_GRAPH,
    OPENVINO,
    OURS,
    PYTORCH,
    Forced,
    Subject,
)
from sed_trt.benchmarks.speed.opening import by_default, check_memory, export_one_graph, open_candidate
from sed_trt.benchmarks.speed.rounds import scene_images
from sed_trt.errors import InputError
from sed_trt.model.presets import preset_named
from sed_trt.runtime import Segmenter
from sed_trt.train.scenes import VOCABULARY

HALF = {name for name, baseline in BASELINES.items() if baseline.precision == "bf16"}


@pytest.fixture(scope="module")
def subject(tiny_bundle: Path, tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Subject:
    """sed-tiny with its one graph for images of 64 pixels."""
    graph = export_one_graph(str(tiny_checkpoint), 64, tmp_path_factory.mktemp("graph"))
    return Subject(str(tiny_bundle), str(tiny_checkpoint), "onnxruntime", "cpu", 1, graph)


def test_baselines_differ_in_what_they_are() -> None:
    parts = [(each.library, each.precision, each.mode) for each in BASELINES.values()]
    assert len(set(parts)) == len(parts)
    assert all(name == each.name for name, each in BASELINES.items())


@pytest.mark.parametrize("amx", [True, False])
def test_bf16_is_a_default_only_with_amx(amx: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "has_amx_bf16", lambda: amx)
    chosen, skipped = by_default("cpu")
    assert set(chosen) | set(skipped) == set(BASELINES)
    assert set(chosen if amx else skipped) >= HALF
    assert "it needs --device cuda" in skipped["published-autocast"]
    if not amx:
        assert all("has no AMX" in skipped[name] and "--against" in skipped[name] for name in HALF)
    on_gpu, left = by_default("cuda")
    assert "published-autocast" in on_gpu and "published-autocast-bf16" in on_gpu
    assert {BASELINES[name].library for name in left} == {OPENVINO}


def test_flags_and_memory_are_the_systems(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Root:
        def __init__(self, path: str) -> None:
            self._file = tmp_path / Path(path).name

        def read_text(self) -> str:
            return self._file.read_text()

    monkeypatch.setattr(results_file, "Path", Root)
    assert not has_amx_bf16() and available_memory() is None
    (tmp_path / "cpuinfo").write_text("model name\t: A CPU\nflags\t: sse amx_bf16\n\nflags : sse\n")
    (tmp_path / "meminfo").write_text("MemTotal:  9 kB\nMemAvailable:   2048 kB\n")
    assert has_amx_bf16() and results_file.cpu_name() == "A CPU"
    assert available_memory() == 2 << 20
    (tmp_path / "cpuinfo").write_text("flags : sse amx_tile avx512_bf16\n")
    assert not has_amx_bf16()


@pytest.mark.parametrize("name", ["monolithic", "monolithic-openvino", "monolithic-openvino-bf16"])
def test_one_graph_without_rejection_labels_as_ours(name: str, subject: Subject) -> None:
    if BASELINES[name].library == OPENVINO:
        pytest.importorskip("openvino")
    vocabulary = Segmenter(subject.bundle, "onnxruntime").vocabulary(VOCABULARY[:12])
    (image,) = scene_images(1, 64)
    expected = open_candidate(OURS, subject).with_vocabulary(vocabulary)(image, Forced(12).sets(12))
    candidate = open_candidate(name, subject)
    outcome = candidate.with_vocabulary(vocabulary)(image, Forced(3).sets(12))
    assert outcome.kept == (12, 12, 12)
    assert candidate.precision == BASELINES[name].precision
    least = 0.99 if candidate.precision == "fp32" else 0.9
    assert np.mean(outcome.labels == expected.labels) > least


def test_one_graph_is_refused_before_the_memory_is_gone(
    subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "available_memory", lambda: 1 << 30)
    vocabulary = Segmenter(subject.bundle, "onnxruntime").vocabulary(VOCABULARY[:4])
    with pytest.raises(InputError, match=r"monolithic: with 4 categories .* needs 2 GiB, 1 GiB are free"):
        open_candidate("monolithic", subject).with_vocabulary(vocabulary)


@pytest.mark.parametrize("name", [name for name, each in BASELINES.items() if each.mode == ONE_GRAPH])
def test_one_graph_needs_more_memory_for_more_categories(name: str) -> None:
    baseline, preset = BASELINES[name], preset_named("sed-b")
    check_memory(baseline, preset, 150, 12 << 30)
    check_memory(baseline, preset, 150, None)
    with pytest.raises(InputError, match="give a smaller --vocabulary-size"):
        check_memory(baseline, preset, 847, 12 << 30)


def test_openvino_may_be_missing(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(InputError, match="the package 'openvino' is not installed"):
        open_candidate("monolithic-openvino", subject)
    with pytest.raises(InputError, match="it needs --device cpu"):
        open_candidate("monolithic-openvino", replace(subject, device="cuda"))


def test_compiled_parts_run_under_autocast(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    """The compiler itself takes minutes; what it is given, and that a limit is an error, is checked."""
    import torch

    given: list[object] = []

    def compiled_part(part: object) -> object:
        given.append(part)
        return part

    monkeypatch.setattr(torch, "compile", compiled_part)
    config = SimpleNamespace()
    monkeypatch.setattr(torch, "_dynamo", SimpleNamespace(config=config), raising=False)
    vocabulary = Segmenter(subject.bundle, "onnxruntime").vocabulary(VOCABULARY[:12])
    (image,) = scene_images(1, 64)
    outcomes = {
        name: open_candidate(name, subject).with_vocabulary(vocabulary)(image, Forced(5).sets(12))
        for name in ("published-autocast-bf16", "published-compiled-bf16", "published-compiled")
    }
    assert len(given) == 8 and config.fail_on_recompile_limit_hit
    half, compiled_half, compiled = (outcome.labels for outcome in outcomes.values())
    assert np.array_equal(half, compiled_half) and not np.array_equal(half, compiled)
    modes = {name for name, each in BASELINES.items() if (each.library, each.mode) == (PYTORCH, COMPILED)}
    assert modes == set(outcomes) - {"published-autocast-bf16"}


def test_the_names_of_baselines_need_no_library() -> None:
    code = (
        "import sys; import sed_trt.benchmarks.speed.candidates as c; "
        "assert c.BASELINES; "
        "assert not {'torch', 'openvino', 'onnx'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
