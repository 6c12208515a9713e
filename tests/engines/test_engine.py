"""Parts of arrays on a device."""

import gc
import weakref

import pytest

from sed_trt.engines.engine import ITEM_BYTES, DeviceArray


class Owner:
    """Memory."""


@pytest.mark.parametrize(("dtype", "size"), ITEM_BYTES.items())
def test_rows_are_offsets(dtype: str, size: int) -> None:
    array = DeviceArray(Owner(), 1024, dtype, (5, 2, 3))
    assert (array.nbytes, len(array)) == (30 * size, 5)
    part = array[1:4]
    assert (part.pointer, part.shape, part.nbytes) == (1024 + 6 * size, (3, 2, 3), 18 * size)
    assert part[2:].pointer == array[3:].pointer
    assert array[2:99].shape == (3, 2, 3)
    assert array[3:3].nbytes == 0


def test_a_part_keeps_the_memory() -> None:
    owner = Owner()
    alive = weakref.ref(owner)
    part = DeviceArray(owner, 0, "float32", (4,))[1:2]
    del owner
    gc.collect()
    assert alive() is part.owner
    del part
    assert alive() is None


def test_steps_are_refused() -> None:
    with pytest.raises(IndexError, match="step 2"):
        DeviceArray(Owner(), 0, "float32", (4,))[::2]
