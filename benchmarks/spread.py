"""Medians, percentiles and ratios of times."""

from collections.abc import Sequence
from typing import Any

import numpy as np


def percentiles(times: Sequence[float]) -> dict[str, float]:
    """The least, and the 50th, 90th and 99th percentile, interpolated between runs where there are few."""
    found = np.percentile(times, [50, 90, 99])
    named = {f"p{percent}_ms": float(value) for percent, value in zip((50, 90, 99), found, strict=True)}
    return {"least_ms": float(np.min(times))} | named


def ratios(slow: Sequence[float], fast: Sequence[float]) -> dict[str, Any]:
    """How many times longer `slow` took than `fast`: by their medians, their least, and quartiles of rounds.

    Both have one time for each round, taken one after the other, so that what else the machine was doing
    hit both alike. The ratio of the least times is the one that other work disturbs least.
    """
    by_round = np.asarray(slow) / np.asarray(fast)
    lower, middle, upper = (float(value) for value in np.percentile(by_round, [25, 50, 75]))
    return {
        "of_medians": float(np.median(slow) / np.median(fast)),
        "of_least": float(np.min(slow) / np.min(fast)),
        "q1": lower,
        "median": middle,
        "q3": upper,
    }
