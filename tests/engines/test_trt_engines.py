"""The stages on TensorRT from image to labels, on a GPU and a TensorRT in numpy."""

import gc
import itertools
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sed_trt.bundle import Bundle
from sed_trt.engines.device.cuda import Gpu
from sed_trt.engines.engine import DeviceArray
from sed_trt.engines.profiles import Limits, stage_profiles
from sed_trt.engines.store import BuiltEngines, BuiltStage, GraphRecord, NetworkSummary, PlanRecord
from sed_trt.engines.trt import engines as module
from sed_trt.engines.trt.engines import TensorRTEngines
from sed_trt.engines.trt.library import Library
from sed_trt.errors import InputError
from sed_trt.runtime import Budget, KeepAll, Result, TopK, Vocabulary
from sed_trt.runtime.device_rejection import DeviceRejection
from sed_trt.runtime.pipeline import encode, finish, prepare
from sed_trt.runtime.rejection import Rejection
from sed_trt.tests.fakes.device import FakeDevice
from sed_trt.tests.fakes.engines import FakeEngines, colour_vocabulary, quarters
from sed_trt.tests.fakes.manifest import fake_manifest
from sed_trt.tests.fakes.tensorrt import fake_tensorrt

LIMITS = Limits(max_categories=200, max_batch=4, max_side=512)


@dataclass
class Machine:
    """A machine with a GPU, TensorRT and a bundle whose engines are built."""

    device: FakeDevice
    library: Any
    folder: Path
    plans: dict[str, bytes]

    @property
    def built(self) -> Path:
        """The folder of the built engines."""
        return self.folder / "engines" / "built"

    def engines(self, backend: str = "tensorrt") -> TensorRTEngines:
        return TensorRTEngines(
            Bundle(self.folder, fake_manifest()), backend, "asked for", lambda: self.device
        )


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """A fresh one."""
    device = FakeDevice()
    machine = Machine(device, fake_tensorrt(device=device), tmp_path, {})
    manifest = fake_manifest()
    stages = {
        name: BuiltStage(
            name,
            PlanRecord(f"{name}.engine", "", 0),
            GraphRecord(""),
            profiles,
            manifest.stages[name].inputs,
            manifest.stages[name].outputs,
            NetworkSummary(),
            0.0,
        )
        for name, profiles in stage_profiles(manifest, LIMITS).items()
    }

    def find_built(bundle: Bundle, backend: str, gpu: Gpu) -> BuiltEngines:
        machine.built.mkdir(parents=True, exist_ok=True)
        return BuiltEngines(machine.built, backend, "1", "sm86", LIMITS, stages)

    monkeypatch.setattr(module, "find_gpu", lambda: Gpu("Fake", (8, 6), "13.0", 2**30))
    monkeypatch.setattr(module, "check_driver", lambda backend, gpu: None)
    monkeypatch.setattr(module, "load_library", lambda backend: Library(backend, machine.library, "1"))
    monkeypatch.setattr(module, "find_built", find_built)
    monkeypatch.setattr(module, "read_plan", lambda built, stage: machine.plans.get(stage, stage.encode()))
    return machine


def segment(
    engines: Any, image: np.ndarray, vocabulary: Vocabulary, rejection: Rejection | None = None
) -> Result:
    (encoded,) = encode(engines, [prepare(engines, image, None)])
    return finish(encoded, vocabulary, rejection or KeepAll())


def many(count: int) -> Vocabulary:
    """A vocabulary of random colours."""
    text = np.random.default_rng(count).random((count, 1, 3)).astype(np.float32)
    return Vocabulary(tuple(f"colour {number}" for number in range(count)), text)


def noise(seed: int, side: int = 40) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (side, side + 5, 3), dtype=np.uint8)


@pytest.mark.parametrize("count", [1, 4, 9, 40, 150, 200])
@pytest.mark.parametrize("rejection", [KeepAll(), TopK(1), Budget(11)])
def test_labels_are_those_of_numpy(count: int, rejection: Rejection, machine: Machine) -> None:
    expected = segment(FakeEngines(), noise(1), many(count), rejection)
    result = segment(machine.engines(), noise(1), many(count), rejection)
    assert np.array_equal(result.labels, expected.labels)
    assert np.array_equal(result.scores, expected.scores)
    assert result.kept == expected.kept


def test_only_votes_come_down_and_indices_go_up_between_the_stages(machine: Machine) -> None:
    engines = machine.engines()
    vocabulary = colour_vocabulary()
    vocabulary.on_device(engines)
    machine.device.fresh.clear()
    segment(engines, quarters(), vocabulary)
    assert [(kind, name, *rest[1:]) for kind, name, *rest in machine.device.log] == [
        ("run", "pixels", ["image"]),
        ("run", "image", []),
        ("run", "scout", []),
        ("down", "votes0"),
        ("run", "gather1", ["kept0"]),
        ("run", "decode1", []),
        ("down", "votes1"),
        ("run", "gather2", ["kept1"]),
        ("run", "decode2", []),
        ("down", "votes2"),
        ("run", "gather3", ["kept2"]),
        ("run", "decode3", []),
        ("run", "label", ["kept", "rows", "columns"]),
        ("down", "labels"),
        ("down", "scores"),
    ]


@pytest.mark.parametrize(
    ("kept", "profile"), [(1, 0), (8, 0), (32, 0), (33, 1), (128, 1), (129, 2), (200, 2)]
)
def test_the_profile_follows_the_padded_count(kept: int, profile: int, machine: Machine) -> None:
    segment(machine.engines(), noise(2), many(200), Budget(kept))
    profiles = {stage: index for kind, stage, index, *_ in filter(is_run, machine.device.log)}
    assert [profiles[stage] for stage in ("decode1", "decode2", "decode3", "label")] == [profile] * 4
    assert profiles["scout"] == 2


def is_run(entry: tuple[Any, ...]) -> bool:
    return bool(entry[0] == "run")


def test_buckets_end_at_what_was_built(machine: Machine) -> None:
    assert machine.engines().buckets == (8, 16, 32, 64, 128, 200)


def test_more_categories_than_were_built_for(machine: Machine) -> None:
    with pytest.raises(InputError, match=r"scout: axis 0 of text is 201, .* at most 200.*--max-categories"):
        segment(machine.engines(), noise(1), many(201))


def test_larger_images_than_were_built_for(machine: Machine) -> None:
    with pytest.raises(InputError, match=r"pixels: axis 1 of image is 513, .* at most 512"):
        prepare(machine.engines(), noise(1, 513), None)


def test_memory_is_taken_again(machine: Machine) -> None:
    engines = machine.engines()
    segment(engines, noise(0), many(50))
    gc.collect()
    device = machine.device
    before = (device.allocations, device.host_allocations)
    for seed in range(5):
        segment(engines, noise(seed), many(50))
    assert (device.allocations, device.host_allocations) == before


def test_a_batch_is_stacked_on_the_device(machine: Machine) -> None:
    engines = machine.engines()
    images = [noise(seed) for seed in range(3)]
    encoded = encode(engines, [prepare(engines, image, None) for image in images])
    assert machine.device.copies == 3
    assert not [entry for entry in machine.device.log if entry[0] == "down"]
    for item, image in zip(encoded, images, strict=True):
        expected = segment(FakeEngines(), image, many(20), TopK(2))
        assert np.array_equal(finish(item, many(20), TopK(2)).labels, expected.labels)


def test_an_encoded_image_is_decoded_as_often_as_wanted(machine: Machine) -> None:
    engines = machine.engines()
    (encoded,) = encode(engines, [prepare(engines, noise(0), None)])
    for count, rejection in ((20, TopK(2)), (150, KeepAll()), (20, TopK(2))):
        # Another image in between takes what memory it can.
        segment(engines, noise(1), many(9))
        expected = segment(FakeEngines(), noise(0), many(count), rejection)
        assert np.array_equal(finish(encoded, many(count), rejection).labels, expected.labels)


def test_too_large_a_batch(machine: Machine) -> None:
    engines = machine.engines()
    with pytest.raises(InputError, match=r"image: axis 0 of pixels is 5, .*--max-batch"):
        encode(engines, [prepare(engines, noise(seed), None) for seed in range(5)])


def test_many_threads_give_what_one_gives(machine: Machine) -> None:
    engines = machine.engines()
    policies: tuple[Rejection, ...] = (KeepAll(), TopK(1), Budget(7))
    cases = list(itertools.product(range(6), (3, 40, 130), policies))
    expected = [segment(FakeEngines(), noise(seed), many(count), policy) for seed, count, policy in cases]
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda case: segment(engines, noise(case[0]), many(case[1]), case[2]), cases))
    for result, wanted in zip(results, expected, strict=True):
        assert np.array_equal(result.labels, wanted.labels)
        assert np.array_equal(result.scores, wanted.scores)


def test_logits_of_the_rejection_points_stay_away(machine: Machine) -> None:
    engines = machine.engines()
    features = encode(engines, [prepare(engines, noise(0), None)])[0].features
    assert all(isinstance(value, DeviceArray) for value in features.values())
    outputs = engines["scout"].run({"embed": features["embed"], "text": many(3).text})
    assert list(outputs) == ["votes0"]
    assert isinstance(outputs["votes0"], np.ndarray)


def test_out_of_memory(machine: Machine) -> None:
    engines = machine.engines()
    segment(engines, noise(0), many(8))
    machine.device.limit = machine.device.used() + 100_000
    with pytest.raises(InputError, match=r"the GPU's memory is too small \(.* asked for, .* free\); lower"):
        segment(engines, noise(0, 500), many(200))
    machine.device.limit = 2**40
    segment(engines, noise(0), many(200))


def test_plan_that_tensorrt_refuses(machine: Machine) -> None:
    machine.plans["scout"] = b"refused: version tag does not match"
    with pytest.raises(InputError) as caught:
        machine.engines()["scout"]
    assert "scout.engine: tensorrt cannot load it (refused: version tag does not match)" in str(caught.value)
    assert f"`sed-trt build {machine.folder} --backend tensorrt" in str(caught.value)


def test_plan_whose_weights_do_not_fit(machine: Machine) -> None:
    machine.plans["image"] = b"refused: Cuda Runtime (out of memory)"
    with pytest.raises(InputError, match=r"image.engine: loading the weights: the GPU's memory is too small"):
        machine.engines()["image"]


def test_plan_refused_for_another_reason_than_memory(machine: Machine) -> None:
    machine.plans["image"] = b"refused: an illegal memory access was encountered"
    with pytest.raises(InputError, match=r"image.engine: tensorrt cannot load it .*illegal memory access"):
        machine.engines()["image"]


def test_gpu_that_takes_no_plans_shows_at_once(machine: Machine) -> None:
    machine.plans["label"] = b"refused: not for this GPU"
    with pytest.raises(InputError, match=r"label.engine: tensorrt-rtx cannot load it .*not for this GPU"):
        machine.engines("tensorrt-rtx")
    gc.collect()
    assert machine.device.closed


def test_runtime_that_does_not_start(machine: Machine) -> None:
    def fail(logger: Any) -> object:
        logger.log(1, "CUDA initialization failure with error: 35")
        return object()

    machine.library.Runtime = fail
    with pytest.raises(
        InputError, match=r"it does not start \(CUDA initialization failure .* update the driver"
    ):
        machine.engines()


def test_context_that_tensorrt_cannot_make(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    engines = machine.engines()
    native = engines["pixels"]._engine
    monkeypatch.setattr(native, "create_execution_context", lambda how: None)
    with pytest.raises(RuntimeError, match="no context for the stage pixels: no reason given"):
        prepare(engines, noise(0), None)


def test_rtx_keeps_its_kernels_on_disk(machine: Machine) -> None:
    engines = machine.engines("tensorrt-rtx")
    segment(engines, noise(0), many(4))
    engines["text"].run({"tokens": np.zeros((3, 5), np.int64)})
    configs = machine.library.runtime_configs
    strategies = {
        name: config.dynamic_shapes_kernel_specialization_strategy for name, config in configs.items()
    }
    assert strategies == {
        "text": "NONE", "pixels": "NONE", "image": "EAGER", "scout": "EAGER", "gather1": "NONE",
        "decode1": "EAGER", "gather2": "NONE", "decode2": "EAGER", "gather3": "NONE", "decode3": "EAGER",
        "label": "NONE",
    }  # fmt: skip
    assert len(machine.library.caches) == 1
    assert all(config.cache is machine.library.caches[0] for config in configs.values())
    del engines
    gc.collect()
    assert (machine.built / "runtime.cache").read_bytes() == b"k"
    segment(machine.engines("tensorrt-rtx"), noise(0), many(4))
    assert machine.library.caches[1].loaded == b"k"


def test_engines_end_before_the_device(machine: Machine) -> None:
    engines = machine.engines()
    segment(engines, noise(0), many(4))
    del engines
    gc.collect()
    assert machine.device.closed
    assert machine.device.memory == {}
    assert not (machine.built / "runtime.cache").exists()


def test_backend_is_named(machine: Machine) -> None:
    engines = machine.engines("tensorrt-rtx")
    assert (engines.backend, engines.reason) == ("tensorrt-rtx", "asked for")
    assert engines["label"] is engines["label"]
    assert engines["label"].name == "label"


@pytest.mark.parametrize("rejection", [TopK(1), Budget(11), KeepAll()])
def test_rejection_on_the_device_waits_once_for_an_image(rejection: Rejection, machine: Machine) -> None:
    engines = machine.engines()
    device = DeviceRejection(engines)
    waits = []
    for seed in (0, 0, 1, 1):
        (encoded,) = encode(engines, [prepare(engines, noise(seed), None)])
        before = machine.device.waits
        decoded = device.decode(encoded, many(40), rejection)
        decoding = machine.device.waits - before
        result = device.label(decoded, many(40).names)
        waits.append((decoding, machine.device.waits - before))
        expected = segment(FakeEngines(), noise(seed), many(40), rejection)
        assert np.array_equal(result.labels, expected.labels)
        assert result.kept == expected.kept
    # The first image with TopK has nothing to guess from; the second and the fourth repeat the one before.
    assert waits[0] == ((3, 4) if isinstance(rejection, TopK) else (0, 1))
    assert waits[1] == waits[3] == (0, 1)
