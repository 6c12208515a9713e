"""The stages on TensorRT from image to labels, on a GPU and a TensorRT in numpy."""

import gc
import itertools
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sed_trt.engines.engine import DeviceArray
from sed_trt.engines.trt import contexts
from sed_trt.errors import InputError
from sed_trt.runtime import Budget, KeepAll, TopK, pipeline
from sed_trt.runtime.device_rejection import DeviceRejection
from sed_trt.runtime.pipeline import encode, finish, prepare
from sed_trt.runtime.rejection import Rejection
from sed_trt.stages import DECODER, GATHERS
from sed_trt.tests.fakes.engines import FakeEngines, colour_vocabulary, quarters
from sed_trt.tests.fakes.results import scores_of
from sed_trt.tests.fakes.tensorrt import Context
from sed_trt.tests.fakes.tensorrt_machine import Machine, install_machine, many, noise, segment

# What the log of a device names while an image is decoded.
DECODED = {stage.name for stage in (*DECODER, *GATHERS.values())} | {"votes0", "votes1", "votes2"}


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """A fresh one."""
    return install_machine(tmp_path, monkeypatch)


@pytest.mark.parametrize("count", [1, 4, 9, 40, 150, 200])
@pytest.mark.parametrize("rejection", [KeepAll(), TopK(1), Budget(11)])
def test_labels_are_those_of_numpy(count: int, rejection: Rejection, machine: Machine) -> None:
    expected = segment(FakeEngines(), noise(1), many(count), rejection)
    result = segment(machine.engines(), noise(1), many(count), rejection)
    assert np.array_equal(result.labels, expected.labels)
    assert np.array_equal(scores_of(result), scores_of(expected))
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
        ("run", "label_gpu", ["kept", "rows", "columns"]),
        # Labels and scores in one piece.
        ("down", "a stack"),
    ]


@pytest.mark.parametrize(
    ("kept", "profile"), [(1, 0), (8, 0), (32, 0), (33, 1), (128, 1), (129, 2), (200, 2)]
)
def test_the_profile_follows_the_padded_count(kept: int, profile: int, machine: Machine) -> None:
    segment(machine.engines(), noise(2), many(200), Budget(kept))
    profiles = {stage: index for kind, stage, index, *_ in filter(is_run, machine.device.log)}
    assert [profiles[stage] for stage in ("decode1", "decode2", "decode3", "label_gpu")] == [profile] * 4
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
        assert np.array_equal(scores_of(result), scores_of(wanted))


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


def test_labels_of_all_tiles_come_down_at_once(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "MAX_TILE_VALUES", 9 * 8 * 45)
    engines = machine.engines()
    (encoded,) = encode(engines, [prepare(engines, noise(3), None)])
    machine.device.log.clear()
    result = finish(encoded, many(9), Budget(8), with_scores=False)
    labelling = [entry[:2] for entry in machine.device.log if entry[1] not in DECODED]
    assert labelling == [("run", "label_gpu")] * 5 + [("down", "a stack")]
    expected = segment(FakeEngines(), noise(3), many(9), Budget(8))
    assert np.array_equal(result.labels, expected.labels) and result.scores is None


@pytest.mark.parametrize("with_scores", [True, False])
def test_two_bytes_a_label_come_down_and_scores_when_asked(
    machine: Machine, with_scores: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    engines = machine.engines()
    real, fetched = engines.to_host, []

    def to_host(value: Any) -> np.ndarray:
        fetched.append(value.nbytes)
        return real(value)

    monkeypatch.setattr(engines, "to_host", to_host)
    (encoded,) = encode(engines, [prepare(engines, noise(3), None)])
    result = finish(encoded, many(9), KeepAll(), with_scores)
    assert fetched == [40 * 45 * (6 if with_scores else 2)]
    expected = segment(FakeEngines(), noise(3), many(9))
    assert np.array_equal(result.labels, expected.labels)
    if with_scores:
        assert np.array_equal(scores_of(result), scores_of(expected))


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
    machine.plans["label_gpu"] = b"refused: not for this GPU"
    with pytest.raises(InputError, match=r"label_gpu.engine: tensorrt-rtx cannot load it .*not for this GPU"):
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


def test_profile_that_tensorrt_does_not_take(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    engines = machine.engines()
    errors = engines._contexts._log.errors

    def fail(context: Context, profile: int, stream: int) -> bool:
        errors.append(reason)
        raise RuntimeError("Error in set optimization profile async.")

    monkeypatch.setattr(Context, "set_optimization_profile_async", fail)
    reason = "the profile is in use"
    message = "tensorrt takes no profile 0 of the stage pixels: the profile is in use"
    with pytest.raises(RuntimeError, match=message):
        prepare(engines, noise(0), None)
    reason = "Cuda Runtime (out of memory)"
    with pytest.raises(InputError, match=r"stage pixels: the GPU.s memory is too small"):
        prepare(engines, noise(0), None)


def test_memory_of_no_size_is_an_error(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    engines = machine.engines()
    errors: list[str] = []

    def no_size(context: Context) -> int:
        engines._contexts._log.errors.extend(errors)
        return 0

    monkeypatch.setattr(Context, "update_device_memory_size_for_shapes", no_size)
    # Shapes that need none are no failure.
    prepare(engines, noise(0), None)
    errors.append("shapes are not set")
    message = "stage pixels: TensorRT gives no size of its memory: shapes are not set"
    with pytest.raises(RuntimeError, match=message):
        prepare(engines, noise(0), None)


@pytest.mark.parametrize(
    ("problem", "message"),
    [
        ("VERSION_MISMATCH", "refused: it; VERSION_MISMATCH.; build it again with `sed-trt build "),
        ("UNSUPPORTED_CC", "UNSUPPORTED_CC.: it is for other GPUs than this one; build it here with"),
        ("OLD_CUDA_DRIVER", "the CUDA of this machine is too old for it; update the driver"),
        ("INSUFFICIENT_GPU_MEMORY", "scout.engine: loading the weights: the GPU.s memory is too small"),
    ],
)
def test_rtx_says_why_it_refuses_a_plan(problem: str, message: str, machine: Machine) -> None:
    machine.plans["scout"] = b"refused: it"
    machine.library.diagnostics = machine.library.EngineInvalidityDiagnostics[problem]
    with pytest.raises(InputError, match=message) as caught:
        machine.engines("tensorrt-rtx")["scout"]
    assert ("build it again" in str(caught.value)) == (problem == "VERSION_MISMATCH")


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
        "label_gpu": "NONE",
    }  # fmt: skip
    assert len(machine.library.caches) == 1
    assert all(config.cache is machine.library.caches[0] for config in configs.values())
    del engines
    gc.collect()
    kept = (machine.built / "runtime.cache").read_bytes()
    assert kept == machine.library.caches[0].serialize() != b""
    segment(machine.engines("tensorrt-rtx"), noise(0), many(4))
    assert machine.library.caches[1].loaded == kept


def test_rtx_keeps_its_kernels_once_it_is_warm(machine: Machine) -> None:
    engines = machine.engines("tensorrt-rtx")
    segment(engines, noise(0), many(4))
    file = machine.built / "runtime.cache"
    assert not file.exists()
    engines.warmed_up()
    kept = file.read_bytes()
    assert b"decode3" in kept
    # Nothing new is compiled for shapes that were seen, so nothing is asked for or written.
    cache = machine.library.caches[0]
    asked = cache.serialized
    file.unlink()
    segment(engines, noise(1), many(4))
    engines.warmed_up()
    assert cache.serialized == asked
    assert not file.exists()
    segment(engines, noise(1), many(40))
    engines.warmed_up()
    assert len(file.read_bytes()) > len(kept)


def test_rtx_keeps_new_kernels_now_and_then(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    engines = machine.engines("tensorrt-rtx")
    file = machine.built / "runtime.cache"
    monkeypatch.setattr(contexts, "SAVE_SECONDS", float("inf"))
    segment(engines, noise(0), many(4))
    assert not file.exists()
    monkeypatch.setattr(contexts, "SAVE_SECONDS", 0.0)
    segment(engines, noise(0), many(4))
    cache = machine.library.caches[0]
    assert (file.read_bytes(), cache.serialized) == (cache.serialize(), 1)
    segment(engines, noise(0), many(4))
    assert cache.serialized == 2


def test_tensorrt_keeps_no_kernels(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contexts, "SAVE_SECONDS", 0.0)
    engines = machine.engines()
    segment(engines, noise(0), many(4))
    engines.warmed_up()
    assert not (machine.built / "runtime.cache").exists()


@pytest.mark.parametrize("backend", ["tensorrt", "tensorrt-rtx"])
@pytest.mark.parametrize("cuda_graphs", [False, True])
def test_the_host_waits_four_times_an_image(backend: str, cuda_graphs: bool, machine: Machine) -> None:
    """Three times for votes and once for the labels: whatever else waits would make the GPU idle."""
    engines = machine.engines(backend, cuda_graphs)
    vocabulary = many(40)
    vocabulary.on_device(engines)
    for seed in range(3):
        before = machine.device.waits
        segment(engines, noise(seed), vocabulary, TopK(2))
        assert machine.device.waits - before == 4


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
    assert engines["label_gpu"] is engines["label_gpu"]
    assert engines["label_gpu"].name == "label_gpu"


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
