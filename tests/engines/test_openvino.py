"""OpenVINO on the CPU: agreement with ONNX Runtime, precision, threads, and graphs that are refused."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sed_trt.bundle import Bundle
from sed_trt.engines import backends
from sed_trt.engines.backends import open_engines
from sed_trt.engines.openvino import engines as module
from sed_trt.engines.openvino.engines import OpenVinoEngine, OpenVinoEngines
from sed_trt.engines.openvino.library import SelfTest, self_test
from sed_trt.engines.openvino.models import properties, takes_one_image
from sed_trt.engines.openvino.precision import Arithmetic
from sed_trt.errors import InputError
from sed_trt.runtime import Budget, KeepAll, Segmenter, TopK
from sed_trt.stages import STAGE_NAMES
from sed_trt.tests.fakes.manifest import with_other_guidance
from sed_trt.tests.paths import ROOT

pytest.importorskip("openvino")

NAMES = ["sky", "grass", "sand", "water", "brick wall", "road", "red car", "house", "tree", "boat", "dog"]
SCENES = sorted((ROOT / "examples").glob("scene-*.png"))[:3]
FP32 = Arithmetic("f32", "float32")


@pytest.fixture
def bundle(tiny_bundle: Path) -> Bundle:
    """sed-tiny."""
    return Bundle.open(tiny_bundle)


@pytest.fixture(scope="module")
def reference(tiny_bundle: Path) -> Segmenter:
    """sed-tiny in FP32 on ONNX Runtime."""
    return Segmenter(tiny_bundle, "onnxruntime")


def agreement(found: Segmenter, reference: Segmenter, rejection: Any) -> float:
    """Share of the pixels of some scenes that have the same label."""
    same = [
        np.mean(found(scene, NAMES, rejection).labels == reference(scene, NAMES, rejection).labels)
        for scene in SCENES
    ]
    return float(np.mean(same))


@pytest.mark.parametrize("rejection", [KeepAll(), TopK(2), Budget(5)])
def test_fp32_agrees_with_onnxruntime(rejection: Any, tiny_bundle: Path, reference: Segmenter) -> None:
    segmenter = Segmenter(tiny_bundle, "openvino")
    assert (segmenter.backend, segmenter.backend_reason) == ("openvino", "asked for")
    assert agreement(segmenter, reference, rejection) >= 0.999


def test_fp16_weights_are_computed_in_fp32(tiny_bundle_fp16: Path, reference: Segmenter) -> None:
    segmenter = Segmenter(tiny_bundle_fp16, "openvino")
    assert "FP16 weights computed in FP32" in segmenter.backend_reason
    assert agreement(segmenter, reference, TopK()) >= 0.999
    assert segmenter.encode(SCENES[0]).features["embed"].dtype == np.float32
    assert dtypes(OpenVinoEngine(segmenter.bundle, "decode2", FP32)) == {"f32"}


def test_bf16_agrees(tiny_bundle_bf16: Path, reference: Segmenter) -> None:
    """On AMX in BF16, else in FP32."""
    segmenter = Segmenter(tiny_bundle_bf16, "openvino")
    on_amx = self_test("bf16").on_amx
    note = "computed in BF16 on AMX" if on_amx else "BF16 weights computed in FP32"
    assert note in segmenter.backend_reason
    assert agreement(segmenter, reference, TopK()) >= 0.99
    assert segmenter.encode(SCENES[0]).features["embed"].dtype == (np.uint16 if on_amx else np.float32)


def test_islands_are_what_the_reason_says(tiny_bundle_bf16: Path) -> None:
    """Layer norms and heads are FP32 islands: in BF16 where it is asked for, and never after a widening."""
    if not self_test("bf16").on_amx:
        pytest.skip("this processor has no AMX")
    bundle = Bundle.open(tiny_bundle_bf16)
    asked = OpenVinoEngine(bundle, "decode2", Arithmetic("bf16", "bfloat16"))
    kept = OpenVinoEngine(bundle, "decode2", Arithmetic("f32", "bfloat16"))
    assert dtypes(asked, "MVN") == {"bf16"}
    assert dtypes(kept, "MVN") == {"f32"}
    assert dtypes(kept, "FullyConnected") == {"bf16"}
    assert dtypes(OpenVinoEngine(bundle, "decode2", FP32)) == {"f32"}


def dtypes(engine: OpenVinoEngine, kind: str | None = None) -> set[str]:
    """Floating-point types that a compiled stage computes in, of one kind of operator or of all."""
    found = set()
    for node in engine._compiled.get_runtime_model().get_ordered_ops():
        facts = {key: str(value.value) for key, value in node.get_rt_info().items()}
        if facts["layerType"] not in ("Const", "Input", "Output") and kind in (None, facts["layerType"]):
            found.add(facts["runtimePrecision"])
    return found & {"f32", "f16", "bf16"}


def test_failed_self_test(tiny_bundle_bf16: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = SelfTest("bf16", "brgemm_bf16", 5.0)
    monkeypatch.setattr("sed_trt.engines.openvino.precision.self_test", lambda _precision: wrong)
    engines = open_engines(Bundle.open(tiny_bundle_bf16), "openvino")
    assert "BF16 failed its self-test on this processor: wrong by 500% (brgemm_bf16)" in engines.reason
    assert (
        engines["image"].run({"pixels": np.zeros((1, 3, 256, 256), np.float32)})["embed"].dtype == np.float32
    )


WITHOUT_AMX = """
import sys
from sed_trt.runtime import Segmenter
segmenter = Segmenter(sys.argv[1], "openvino")
print(len(set(segmenter(sys.argv[2], ["sky", "tree"]).labels.ravel().tolist())))
print(segmenter.backend_reason)
"""


@pytest.mark.parametrize("isa", ["AVX512_CORE_BF16", "AVX2"])
def test_processor_without_amx(isa: str, tiny_bundle_bf16: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_AMX, str(tiny_bundle_bf16), str(SCENES[0])],
        capture_output=True,
        text=True,
        env={**os.environ, "ONEDNN_MAX_CPU_ISA": isa, "SED_TRT_CACHE": str(tmp_path)},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    labels, reason = done.stdout.splitlines()
    assert labels == "2"
    assert "BF16 weights computed in FP32: " in reason


def test_auto_takes_openvino(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    engines = open_engines(bundle)
    assert engines.backend == "openvino"
    assert "1.2 times as fast as ONNX Runtime where both were measured" in engines.reason


def test_auto_without_openvino(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "openvino")
    find = backends.is_installed
    monkeypatch.setattr(backends, "is_installed", lambda name: name != "openvino" and find(name))
    engines = open_engines(bundle)
    assert engines.backend == "onnxruntime"
    assert "openvino: openvino is not installed" in engines.reason


def test_auto_where_openvino_fails(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: Any) -> Any:
        raise InputError("label.onnx: OpenVINO cannot load it (no kernel); update openvino")

    monkeypatch.setattr(module, "compile_stage", fail)
    engines = open_engines(bundle)
    assert engines.backend == "onnxruntime"
    assert "openvino: label.onnx: OpenVINO cannot load it (no kernel)" in engines.reason


def test_a_batch_gives_what_single_images_give(bundle: Bundle) -> None:
    assert [stage for stage in STAGE_NAMES if takes_one_image(stage)] == ["image"]
    engine = OpenVinoEngines(bundle, None, "asked for")["image"]
    side = bundle.manifest.image_size
    pixels = np.random.default_rng(0).standard_normal((3, 3, side, side), dtype=np.float32)
    whole = engine.run({"pixels": pixels})
    for row in range(3):
        single = engine.run({"pixels": pixels[row : row + 1]})
        assert all(np.array_equal(whole[name][row : row + 1], single[name]) for name in whole)


def test_outputs_stay_valid(bundle: Bundle) -> None:
    engine = OpenVinoEngines(bundle, None, "asked for")["pixels"]
    generator = np.random.default_rng(0)
    images = [generator.integers(0, 256, (1, 50, 40 + each, 3), dtype=np.uint8) for each in range(4)]
    # An array that cannot be written to is an input like any other.
    images[0].flags.writeable = False
    outputs = [engine.run({"image": image})["pixels"] for image in images]
    for image, output in zip(images, outputs, strict=True):
        assert np.array_equal(engine.run({"image": image})["pixels"], output)


def test_many_threads_give_what_one_gives(bundle: Bundle) -> None:
    segmenter = Segmenter(bundle.path, "openvino")
    vocabulary = segmenter.vocabulary(NAMES)
    expected = [segmenter(scene, vocabulary) for scene in SCENES]
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda scene: segmenter(scene, vocabulary), SCENES * 4))
    for index, result in enumerate(found):
        assert np.array_equal(result.labels, expected[index % len(SCENES)].labels)
        assert np.array_equal(result.scores, expected[index % len(SCENES)].scores)


def test_stream_gives_what_single_calls_give(bundle: Bundle) -> None:
    segmenter = Segmenter(bundle.path, "openvino")
    vocabulary = segmenter.vocabulary(NAMES)
    expected = {str(scene): segmenter(scene, vocabulary) for scene in SCENES}
    for item in segmenter.stream(SCENES * 3, vocabulary, batch=2):
        assert item.result is not None
        assert np.mean(item.result.labels == expected[str(item.source)].labels) >= 0.999


@pytest.mark.parametrize("threads", [None, 1, 2])
def test_threads(threads: int | None, bundle: Bundle) -> None:
    engine = OpenVinoEngine(bundle, "decode3", FP32, threads)
    used = engine._compiled.get_property("INFERENCE_NUM_THREADS")
    assert used == threads if threads else used >= 1
    assert ("INFERENCE_NUM_THREADS" in properties("f32", threads)) == (threads is not None)
    if threads is not None:
        assert engine._compiled.get_property("ENABLE_CPU_PINNING") is False


@pytest.mark.parametrize(("threads", "at_once"), [(None, 2), (1, 2)])
def test_images_side_by_side_share_the_cores(threads: int | None, at_once: int, bundle: Bundle) -> None:
    engines = OpenVinoEngines(bundle, threads, "asked for", at_once)
    assert engines.images_at_once == at_once
    engine = engines["decode3"]
    assert isinstance(engine, OpenVinoEngine)
    compiled = engine._compiled
    assert compiled.get_property("NUM_STREAMS") == at_once
    assert compiled.get_property("ENABLE_CPU_PINNING") is False
    if threads is not None:
        assert compiled.get_property("INFERENCE_NUM_THREADS") == threads * at_once


def test_a_stream_of_images_side_by_side_gives_what_single_calls_give(bundle: Bundle) -> None:
    alone = Segmenter(bundle.path, "openvino")
    together = Segmenter(bundle.path, "openvino", images_at_once=2)
    vocabulary = alone.vocabulary(NAMES)
    expected = {str(scene): alone(scene, vocabulary) for scene in SCENES}
    for item in together.stream(SCENES * 3, vocabulary):
        assert item.result is not None
        assert np.mean(item.result.labels == expected[str(item.source)].labels) >= 0.999


STAY = """
import os, sys
import numpy as np
from sed_trt.bundle import Bundle
from sed_trt.engines.openvino.engines import OpenVinoEngines
engine = OpenVinoEngines(Bundle.open(sys.argv[1]), 1, "asked for")["pixels"]
seen = set()
for _ in range(50):
    engine.run({"image": np.zeros((1, 99, 99, 3), np.uint8)})
    for thread in os.listdir("/proc/self/task"):
        try:
            seen.add(frozenset(os.sched_getaffinity(int(thread))))
        except OSError:
            pass
print(seen == {frozenset(os.sched_getaffinity(0))})
"""


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="the system does not tell affinities")
def test_few_threads_are_tied_to_no_core(tiny_bundle: Path) -> None:
    """Two processes with one thread each would share a core."""
    done = subprocess.run(
        [sys.executable, "-c", STAY, str(tiny_bundle)], capture_output=True, text=True, check=False
    )
    assert done.stdout == "True\n", done.stderr


def test_a_graph_unlike_the_manifest_is_refused(tiny_bundle: Path, tmp_path: Path) -> None:
    folder = with_other_guidance(tiny_bundle, tmp_path / "bundle")
    bundle = Bundle.open(folder)
    with pytest.raises(InputError) as caught:
        OpenVinoEngine(bundle, "image", FP32)
    line = str(caught.value)
    assert line.startswith(
        f"{folder / 'image.onnx'}: its outputs are embed float32 (?, 128, 8, 8), guidance1 "
    )
    assert "but the manifest says embed float32 (?, 128, 8, 8), guidance1 float32 (?, 17, 16, 16)" in line
    assert "\n" not in line
    with pytest.raises(InputError, match=r"decode1\.onnx: its inputs are .* but the manifest says"):
        OpenVinoEngine(bundle, "decode1", FP32)


def test_inputs_that_do_not_fit_are_refused(bundle: Bundle) -> None:
    engine = OpenVinoEngine(bundle, "image", FP32)
    with pytest.raises(InputError, match=r"image\.onnx: OpenVINO .* cannot run it \(.+\); use fewer"):
        engine.run({"pixels": np.zeros((1, 3, 9, 9), np.float32)})
    side = bundle.manifest.image_size
    assert engine.run({"pixels": np.zeros((1, 3, side, side), np.float32)})["embed"].shape[0] == 1
