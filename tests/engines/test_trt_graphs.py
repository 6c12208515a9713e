"""The stages on TensorRT as CUDA graphs: what they give, and the memory that they hold."""

import gc
import itertools
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sed_trt.engines.device.protocol import CaptureError
from sed_trt.errors import InputError
from sed_trt.runtime import Budget, KeepAll, TopK
from sed_trt.runtime.pipeline import encode, finish, prepare
from sed_trt.runtime.rejection import Rejection
from sed_trt.tests.fakes.device import GARBAGE
from sed_trt.tests.fakes.engines import FakeEngines
from sed_trt.tests.fakes.results import scores_of
from sed_trt.tests.fakes.tensorrt_machine import Machine, install_machine, many, noise, segment

# Those whose shapes come again; image, scout, decode1, decode2, decode3.
CAPTURED = 5


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """A fresh one."""
    return install_machine(tmp_path, monkeypatch)


def check(result: Any, seed: int, count: int, rejection: Rejection) -> None:
    """Compare with the stages in numpy."""
    expected = segment(FakeEngines(), noise(seed), many(count), rejection)
    assert np.array_equal(result.labels, expected.labels)
    assert np.array_equal(scores_of(result), scores_of(expected))
    assert result.kept == expected.kept


def test_outputs_are_those_without_graphs(machine: Machine) -> None:
    engines, plain = machine.engines(cuda_graphs=True), machine.engines()
    policies: tuple[Rejection, ...] = (KeepAll(), TopK(1), Budget(11))
    # Twice, so that every graph is launched too.
    for seed, count, policy in [*itertools.product(range(3), (1, 9, 40, 150), policies)] * 2:
        result = segment(engines, noise(seed), many(count), policy)
        check(result, seed, count, policy)
        assert np.array_equal(scores_of(result), scores_of(segment(plain, noise(seed), many(count), policy)))
    assert machine.device.launches > 0


def test_a_set_of_shapes_is_captured_once(machine: Machine) -> None:
    engines = machine.engines(cuda_graphs=True)
    device, vocabulary = machine.device, many(40)
    for seed in range(4):
        check(segment(engines, noise(seed), vocabulary, Budget(8)), seed, 40, Budget(8))
    assert (len(device.graphs), device.launches) == (CAPTURED, 3 * CAPTURED)
    # Other numbers of categories are other shapes in all stages of the decoder, and the same in the encoder.
    for seed in range(2):
        check(segment(engines, noise(seed), many(41), Budget(16)), seed, 41, Budget(16))
    assert len(device.graphs) == 2 * CAPTURED - 1
    check(segment(engines, noise(1), vocabulary, Budget(8)), 1, 40, Budget(8))
    assert len(device.graphs) == 2 * CAPTURED - 1


def test_stages_of_free_shapes_are_not_captured(machine: Machine) -> None:
    engines = machine.engines(cuda_graphs=True)
    for side in (30, 40):
        prepare(engines, noise(0, side), None)
    engines["text"].run({"tokens": np.zeros((3, 5), np.int64)})
    assert machine.device.graphs == []


def test_each_graph_has_a_context_of_its_own(machine: Machine) -> None:
    """A graph is void when the context that it was captured from changes; the fake refuses such a change."""
    engines = machine.engines(cuda_graphs=True)
    for count in (3, 4, 3, 4):
        segment(engines, noise(count), many(count))
    decode = [context for context in machine.library.contexts if context.stage == "scout"]
    assert [context.shapes["text"][0] for context in decode] == [3, 4]
    assert all(context.captured for context in decode)


def test_memory_of_a_graph_is_handed_out_to_no_other(machine: Machine) -> None:
    engines = machine.engines(cuda_graphs=True)
    segment(engines, noise(0), many(8))
    gc.collect()
    fixed = {
        address
        for context in machine.library.contexts
        if context.captured
        for address in (*context.addresses.values(), context.scratch[0])
    }
    # One context each, with other memory for everything.
    held = sum(len(context.addresses) + 1 for context in machine.library.contexts if context.captured)
    assert len(fixed) == held
    # Whatever else is idle is taken and written to.
    with engines._session.work("test") as work:
        taken = [work.scratch(size) for size in (100, 1000, 70_000, 100_000) for _ in range(40)]
    assert fixed.isdisjoint(buffer.pointer for buffer in taken)
    machine.device.catch_up()
    for buffer in taken:
        machine.device.view(buffer.pointer, buffer.size)[:] = GARBAGE
    check(segment(engines, noise(0), many(8)), 0, 8, KeepAll())


def test_what_a_graph_gave_stays_when_it_runs_again(machine: Machine) -> None:
    engines = machine.engines(cuda_graphs=True)
    first, second = (encode(engines, [prepare(engines, noise(seed), None)])[0] for seed in (0, 1))
    for encoded, seed in ((first, 0), (second, 1), (first, 0)):
        check(finish(encoded, many(20), TopK(2)), seed, 20, TopK(2))


def test_memory_is_taken_again(machine: Machine) -> None:
    engines = machine.engines(cuda_graphs=True)
    for _ in range(2):
        segment(engines, noise(0), many(50))
        gc.collect()
    before = (machine.device.allocations, machine.device.host_allocations)
    for seed in range(5):
        segment(engines, noise(seed), many(50))
    assert (machine.device.allocations, machine.device.host_allocations) == before


def test_many_threads_give_what_one_gives(machine: Machine) -> None:
    engines = machine.engines(cuda_graphs=True)
    policies: tuple[Rejection, ...] = (KeepAll(), TopK(1), Budget(7))
    cases = list(itertools.product(range(4), (3, 40), policies)) * 2
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda case: segment(engines, noise(case[0]), many(case[1]), case[2]), cases))
    for result, case in zip(results, cases, strict=True):
        check(result, *case)


def test_work_that_cannot_be_captured(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(enqueue: object) -> None:
        raise CaptureError("operation not permitted when stream is capturing")

    monkeypatch.setattr(machine.device, "capture", fail)
    message = (
        r"stage image: it cannot be captured as a CUDA graph \(operation not .*\); leave cuda_graphs out"
    )
    with pytest.raises(InputError, match=message):
        segment(machine.engines(cuda_graphs=True), noise(0), many(3))


def test_there_are_none_unless_asked_for(machine: Machine) -> None:
    for backend in ("tensorrt", "tensorrt-rtx"):
        engines = machine.engines(backend)
        for seed in range(2):
            segment(engines, noise(seed), many(3))
    assert machine.device.graphs == []
    assert {config.cuda_graph_strategy for config in machine.library.runtime_configs.values()} == {None}


def test_rtx_captures_by_itself(machine: Machine) -> None:
    engines = machine.engines("tensorrt-rtx", cuda_graphs=True)
    for seed in range(2):
        check(segment(engines, noise(seed), many(3)), seed, 3, KeepAll())
    assert machine.device.graphs == []
    strategies = {
        name: config.cuda_graph_strategy for name, config in machine.library.runtime_configs.items()
    }
    whole = "WHOLE_GRAPH_CAPTURE"
    assert strategies == {
        "pixels": None, "image": whole, "scout": whole, "gather1": None, "decode1": whole, "gather2": None,
        "decode2": whole, "gather3": None, "decode3": whole, "label_gpu": None,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("backend", "cuda_graphs", "captures"),
    [("tensorrt", False, False), ("tensorrt", True, True), ("tensorrt-rtx", True, False)],
)
def test_a_device_with_graphs_is_asked_for(
    backend: str, cuda_graphs: bool, captures: bool, machine: Machine
) -> None:
    from sed_trt.bundle import Bundle
    from sed_trt.engines.trt.engines import TensorRTEngines
    from sed_trt.tests.fakes.manifest import fake_manifest

    asked = []

    def open_device(captures: bool) -> Any:
        asked.append(captures)
        return machine.device

    TensorRTEngines(Bundle(machine.folder, fake_manifest()), backend, "", open_device, cuda_graphs)
    assert asked == [captures]


def test_beyond_a_number_of_shapes_nothing_is_captured(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sed_trt.engines.trt.engines.MAX_GRAPHS", 2)
    engines = machine.engines(cuda_graphs=True)
    # Each number of categories is a shape of the scout.
    for count in (3, 4, 5, 6, 3, 6):
        check(segment(engines, noise(count), many(count)), count, count, KeepAll())
    assert len(engines["scout"]._by_shapes) == 2
