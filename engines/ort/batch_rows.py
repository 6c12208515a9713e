"""Places for the images of a batch side by side, so that stacking them copies nothing."""

from collections.abc import Sequence
from dataclasses import replace

from ..device.session import Work
from ..engine import DeviceArray


class BatchRows:
    """Hands out the rows of buffers that are as long as the last batch was.

    Every method is called within `DeviceSession.work`. Images that finish in another order than that of
    their batch lie in another order too, and are copied.
    """

    def __init__(self) -> None:
        self._length = 1
        self._free: DeviceArray | None = None

    def take(self, work: Work, dtype: str, shape: tuple[int, ...]) -> DeviceArray:
        """A new array of `shape`, (1, ...), without content; raises InputError when there is no memory."""
        if not self._free:
            self._free = work.empty(dtype, (self._length, *shape[1:]))
        row, self._free = self._free[:1], self._free[1:]
        return row

    def stack(self, work: Work, arrays: Sequence[DeviceArray]) -> DeviceArray:
        """The arrays one after the other along their first axis, without a copy where they lie so.

        Raises:
            InputError: there is no memory for a copy.
        """
        first = arrays[0]
        # Other arrays, such as labels, are stacked too, and say nothing of batches.
        in_rows = self._free is not None and (self._free.dtype, self._free.shape[1:]) == (
            first.dtype,
            first.shape[1:],
        )
        if in_rows:
            self._length = len(arrays)
        end = first.pointer
        for array in arrays:
            if array.owner is not first.owner or array.pointer != end:
                if in_rows:
                    # The next batch starts with a buffer of its own.
                    self._free = None
                return work.stack(arrays)
            end += array.nbytes
        return replace(first, shape=(sum(map(len, arrays)), *first.shape[1:]))
