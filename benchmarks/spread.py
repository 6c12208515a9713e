"""Medians, percentiles and ratios of times."""

from collections.abc import Sequence
from typing import Any

import numpy as np


def percentiles(times: Sequence[float]) -> dict[str, float]:
    """The 50th, 90th and 99th percentile, interpolated between runs where there are few."""
    found = np.percentile(times, [50, 90, 99])
    return {f"p{percent}_ms": float(value) for percent, value in zip((50, 90, 99), found, strict=True)}


def ratios(slow: Sequence[float], fast: Sequence[float]) -> dict[str, Any]:
    """How many times longer `slow` took than `fast`: the ratio of the medians, and the quartiles of rounds.

    Both have one time for each round, taken one after the other, so that what else the machine was doing
    hit both alike.
    """
    by_round = np.asarray(slow) / np.asarray(fast)
    lower, middle, upper = (float(value) for value in np.percentile(by_round, [25, 50, 75]))
    return {
        "of_medians": float(np.median(slow) / np.median(fast)),
        "q1": lower,
        "median": middle,
        "q3": upper,
    }
