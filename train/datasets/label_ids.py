"""Which category a value in a label file stands for."""

import json
from collections.abc import Iterable, Mapping
from functools import cache
from importlib import resources

import numpy as np

from .dataset import IGNORED

# In a table: the value is none that the set's label files may hold.
OUTSIDE = -2
_VALUES = 65536


@cache
def published_ids(name: str) -> Mapping[int, int]:
    """Category index by raw label id, of "ade847", "coco_stuff" or "pc59"."""
    text = resources.files(__package__).joinpath("label_ids.json").read_text(encoding="utf-8")
    return {int(value): index for value, index in json.loads(text)[name].items()}


def table_of(ids: Mapping[int, int], ignored: Iterable[int] = (), others: int = OUTSIDE) -> np.ndarray:
    """What each value from 0 to 65535 stands for, int32: a category index, `IGNORED` or `OUTSIDE`.

    Args:
        ids: category index by value.
        ignored: values that are not scored; they win over `ids`.
        others: what every value in neither stands for.
    """
    table = np.full(_VALUES, others, np.int32)
    table[list(ids.keys())] = list(ids.values())
    table[list(ignored)] = IGNORED
    return table


def counted_from(first: int, count: int, ignored: Iterable[int] = ()) -> np.ndarray:
    """The table of labels whose values count up from `first`, one for each of `count` categories."""
    return table_of({first + index: index for index in range(count)}, ignored)


def to_categories(raw: np.ndarray, table: np.ndarray) -> tuple[np.ndarray, tuple[int, ...]]:
    """Category indices of the values of a label file, and the values that stand for nothing.

    Args:
        raw: integers (H, W), of any type.
        table: see `table_of`.

    Returns:
        int32 (H, W), `IGNORED` where a value is not scored or stands for nothing; and these last, sorted.
    """
    beyond = (raw < 0) | (raw >= len(table)) if raw.dtype not in (np.uint8, np.uint16) else None
    labels = table[raw if beyond is None else np.where(beyond, 0, raw)]
    if beyond is not None:
        labels[beyond] = OUTSIDE
    outside = labels == OUTSIDE
    if not outside.any():
        return labels, ()
    labels[outside] = IGNORED
    return labels, tuple(int(value) for value in np.unique(raw[outside]))
