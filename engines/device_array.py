"""An array in the memory of a device, as the stages hand it to each other."""

import math
from dataclasses import dataclass, replace

# bfloat16 is no type of numpy's, so a dtype here is a name.
ITEM_BYTES = {"uint8": 1, "float16": 2, "bfloat16": 2, "int32": 4, "float32": 4, "int64": 8}


@dataclass(frozen=True, eq=False)
class DeviceArray:
    """A C-contiguous array on a device.

    Attributes:
        owner: whatever keeps the memory; it lives as long as any array that shows a part of it.
        pointer: address of the first element on the device.
        dtype: one of `ITEM_BYTES`.
        shape: sizes of the axes.
    """

    owner: object
    pointer: int
    dtype: str
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Bytes that the elements take."""
        return math.prod(self.shape) * ITEM_BYTES[self.dtype]

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> "DeviceArray":
        """A part along the first axis, without a copy; steps other than 1 are not possible."""
        start, stop, step = rows.indices(len(self))
        if step != 1:
            raise IndexError(f"step {step}: an array on a device is cut into contiguous parts only")
        row_bytes = math.prod(self.shape[1:]) * ITEM_BYTES[self.dtype]
        shape = (max(0, stop - start), *self.shape[1:])
        return replace(self, pointer=self.pointer + start * row_bytes, shape=shape)
