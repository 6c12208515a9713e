"""Arrays up to a device, between, and down again."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from sed_trt.engines.device.protocol import DeviceMemoryError
from sed_trt.engines.device.session import DeviceSession
from sed_trt.engines.engine import DeviceArray
from sed_trt.errors import InputError
from sed_trt.tests.fakes.device import FakeDevice, FakeEvent


class NamelessDevice(FakeDevice):
    """A device that is asked for arrays that no stage made."""

    def download(self, target: np.ndarray, pointer: int) -> None:
        self.names[pointer] = "array"
        super().download(target, pointer)


def fetch(session: DeviceSession, array: DeviceArray) -> np.ndarray:
    with session.work("test") as work:
        download = work.download(array)
    return session.received(work, download)


@pytest.mark.parametrize("dtype", ["uint8", "int64", "float32", "float16"])
def test_up_and_down(dtype: str) -> None:
    session = DeviceSession(NamelessDevice())
    array = np.arange(60).reshape(5, 4, 3).astype(dtype)
    held = session.upload(array)
    expected = array.copy()
    # The upload is still to be done; it must not see this.
    array[:] = 0
    assert (held.dtype, held.shape) == (dtype, (5, 4, 3))
    assert np.array_equal(fetch(session, held), expected)
    assert np.array_equal(fetch(session, held[1:3]), expected[1:3])


def test_results_are_copies_of_their_own() -> None:
    session = DeviceSession(NamelessDevice())
    first = fetch(session, session.upload(np.full(100, 1.0)[:50].astype(np.float32)))
    second = fetch(session, session.upload(np.full(50, 2, np.float32)))
    assert (first == 1).all()
    assert (second == 2).all()


def test_stack_copies_on_the_device() -> None:
    device = NamelessDevice()
    session = DeviceSession(device)
    arrays = [np.full((rows, 7), rows, np.float32) for rows in (1, 3, 2)]
    stacked = session.stack([session.upload(array) for array in arrays])
    assert device.copies == 3
    assert np.array_equal(fetch(session, stacked), np.concatenate(arrays))
    assert session.stack([stacked]) is stacked


def test_an_array_is_filled_from_the_host_and_from_the_device() -> None:
    device = NamelessDevice()
    session = DeviceSession(device)
    values = np.arange(12, dtype=np.float32).reshape(3, 4)
    with session.work("test") as work:
        target = work.empty("float32", (3, 4))
        copied = work.empty("float32", (3, 4))
        work.fill(target, values)
        work.fill(copied, target)
    values = values.copy()
    assert np.array_equal(fetch(session, target), values)
    assert np.array_equal(fetch(session, copied), values)
    assert (device.copies, device.allocations) == (1, 2)


def test_work_is_waited_for_once() -> None:
    device = NamelessDevice()
    session = DeviceSession(device)
    arrays = [session.upload(np.full(4, number, np.float32)) for number in range(3)]
    with session.work("test") as work:
        downloads = [work.download(array) for array in arrays]
    for number, download in enumerate(downloads):
        assert (session.received(work, download) == number).all()
    assert device.waits == 1


def test_captured_work_is_done_when_it_is_launched() -> None:
    device = NamelessDevice()
    session = DeviceSession(device)
    source, target = session.upload(np.ones(4, np.float32)), session.upload(np.zeros(4, np.float32))
    with session.work("test") as work:
        graph = work.capture(lambda: work.fill(target, source))
    assert (fetch(session, target) == 0).all()
    with session.work("test"):
        graph.launch()
    assert (fetch(session, target) == 1).all()


def test_parts_at_odd_addresses_are_copied_for_tensorrt() -> None:
    device = NamelessDevice()
    session = DeviceSession(device)
    array = session.upload(np.arange(100, dtype=np.float32))
    with session.work("test") as work:
        assert work.aligned(array) is array
        assert work.aligned(array[64:]).pointer == array.pointer + 256
        moved = work.aligned(array[3:])
    assert moved.pointer % 256 == 0
    assert np.array_equal(fetch(session, moved), np.arange(3, 100, dtype=np.float32))


def test_too_little_memory_says_how_much_and_what_to_lower() -> None:
    session = DeviceSession(FakeDevice(limit=3 * 2**20))
    with pytest.raises(InputError) as caught, session.work("stage decode1") as work:
        work.empty("float16", (4, 2**20))
    assert str(caught.value).startswith(
        "stage decode1: the GPU's memory is too small (8.0 MiB asked for, 3.0 MiB free); lower "
    )
    assert "--max-categories" in str(caught.value)
    # The session is as good as before.
    session.upload(np.zeros(3, np.float32))


def test_too_little_host_memory_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    device = NamelessDevice()
    session = DeviceSession(device)
    held = session.upload(np.zeros(4, np.float32))

    def full(size: int) -> np.ndarray:
        raise DeviceMemoryError("out of memory")

    monkeypatch.setattr(device, "allocate_host", full)
    message = r"test: the host's memory .* too small \(1.0 MiB asked for\); lower --batch"
    with pytest.raises(InputError, match=message), session.work("test") as work:
        work.upload(np.zeros(2**18, np.float32))
    with pytest.raises(InputError, match=message), session.work("test") as work:
        work.download(work.empty("float32", (2**18,)))
    monkeypatch.undo()
    assert (fetch(session, held) == 0).all()


def test_a_device_that_fails_does_not_hide_what_went_wrong_first() -> None:
    class Failing(NamelessDevice):
        broken = False

        def record(self) -> FakeEvent:
            if self.broken:
                raise RuntimeError("an illegal memory access was encountered")
            return super().record()

    device = Failing()
    session = DeviceSession(device)
    held = session.upload(np.ones(4, np.float32))
    device.broken = True
    with pytest.raises(ValueError, match="the first"), session.work("test") as work:
        work.upload(np.zeros(4, np.float32))
        raise ValueError("the first")
    with pytest.raises(RuntimeError, match="illegal"), session.work("test"):
        pass
    device.broken = False
    del work
    # Neither the lock nor device memory is lost.
    allocations = device.allocations
    assert (fetch(session, held) == 1).all()
    session.upload(np.zeros(4, np.float32))
    assert device.allocations == allocations


def test_threads_take_turns() -> None:
    session = DeviceSession(NamelessDevice())

    def round_trip(number: int) -> bool:
        array = np.full((number % 7 + 1, 1000), number, np.float32)
        return bool((fetch(session, session.upload(array)) == number).all())

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(round_trip, range(200)))


def test_close_waits_and_frees() -> None:
    device = NamelessDevice()
    session = DeviceSession(device)
    array = session.upload(np.zeros(10, np.float32))
    assert device.done == 0
    session.close()
    assert device.done == 1
    assert device.memory == {}
    assert device.closed
    assert array.shape == (10,)
