"""Device memory and pinned host memory, taken again."""

import numpy as np
import pytest

from sed_trt.engines.device.protocol import DeviceMemoryError
from sed_trt.engines.device.session import MAX_EXCESS, MIN_BUFFER, DevicePool, StagingPool
from sed_trt.tests.fakes.device import FakeDevice

MEGABYTE = 2**20


def test_a_buffer_is_taken_again_once_nobody_has_it() -> None:
    device = FakeDevice()
    pool = DevicePool(device)
    with device.active():
        first = pool.take(MEGABYTE)
        second = pool.take(MEGABYTE)
        assert first.pointer != second.pointer
        pointer = first.pointer
        del first
        assert pool.take(MEGABYTE - 100).pointer == pointer
        assert device.allocations == 2


def test_sizes_near_each_other_share_buffers() -> None:
    device = FakeDevice()
    pool = DevicePool(device)
    with device.active():
        for size in (1, 10, MIN_BUFFER, 5 * MEGABYTE, 5 * MEGABYTE - 1000, 2 * MEGABYTE):
            assert pool.take(size).size >= size
    assert device.allocations == 2


@pytest.mark.parametrize("size", [0, 1, MIN_BUFFER, MIN_BUFFER + 1, 3 * MEGABYTE + 1, 10**9 + 7])
def test_a_buffer_is_hardly_larger_than_asked_for(size: int) -> None:
    device = FakeDevice()
    pool = DevicePool(device)
    device.allocate = lambda size: 4096  # type: ignore[method-assign]
    with device.active():
        taken = pool.take(size).size
    assert size <= taken <= max(size + MIN_BUFFER, size * 9 / 8)
    assert pool.allocated == taken


def test_a_small_request_leaves_a_large_buffer_alone() -> None:
    device = FakeDevice()
    pool = DevicePool(device)
    with device.active():
        pointer = pool.take(MEGABYTE * (MAX_EXCESS + 1)).pointer
        assert pool.take(MEGABYTE).pointer != pointer


def test_idle_buffers_make_room_when_memory_is_short() -> None:
    device = FakeDevice(limit=4 * MEGABYTE)
    pool = DevicePool(device)
    with device.active():
        kept = [pool.take(MEGABYTE) for _ in range(3)]
        assert device.allocations == 3
        del kept
        assert pool.take(3 * MEGABYTE).size == 3 * MEGABYTE
        assert pool.allocated == device.used() == 3 * MEGABYTE
        with pytest.raises(DeviceMemoryError):
            pool.take(5 * MEGABYTE)


def test_close_frees_everything() -> None:
    device = FakeDevice()
    pool = DevicePool(device)
    with device.active():
        used = pool.take(MEGABYTE)
        pool.take(MEGABYTE)
        pool.close()
    assert device.memory == {}
    assert used.size


def test_staging_is_not_taken_while_a_copy_uses_it() -> None:
    device = FakeDevice()
    staging = StagingPool(device)
    with device.active():
        first = staging.take(100)
        device.enqueue(lambda: None)
        staging.give_back_after(first, device.record())
        second = staging.take(100)
        assert second is not first
        device.catch_up()
        assert staging.take(100) is first
        assert device.host_allocations == 2


def test_staging_grows_to_the_largest_size() -> None:
    device = FakeDevice()
    staging = StagingPool(device)
    with device.active():
        for size in (10, 5000, 9000, 10, 9000):
            buffer = staging.take(size)
            assert buffer.size >= size
            assert buffer.dtype == np.uint8
            staging.give_back(buffer)
    assert device.host_allocations == 3
