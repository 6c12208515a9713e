"""The order of the decoder's stages, with a rejection after each of the first three."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..engines.backends import Engines
from ..engines.engine import Value
from .padding import padded
from .rejection import Rejection
from .timing import timed


@dataclass(frozen=True, eq=False)
class Decoded:
    """What the decoder leaves of one image.

    Attributes:
        logits: float32 (K', 8h, 8h), K' >= K: one map per surviving category, then padding that never wins.
        kept_ids: int64 (K,), rising indices of the survivors in the vocabulary.
        kept: categories alive after `scout`, `decode1` and `decode2`.
    """

    logits: Value
    kept_ids: np.ndarray
    kept: tuple[int, int, int]


def decode(
    engines: Engines,
    features: Mapping[str, Value],
    text: Value,
    rejection: Rejection,
    timings: dict[str, float],
) -> Decoded:
    """Run `scout` and the three decoder stages on one image.

    `features` are the outputs of the stage `image` with a batch axis of 1, `text` is float32 (T, P, C). Sets
    the milliseconds of each stage in `timings`.
    """

    def run(stage: str, inputs: dict[str, Value]) -> dict[str, Any]:
        engine = engines[stage]
        with timed(timings, stage):
            return engine.run(inputs)

    def decode_stage(number: int, kept: np.ndarray, inputs: dict[str, Value]) -> dict[str, Any]:
        indices = {f"kept{number - 1}": padded(kept, engines.buckets)}
        guidance = {f"guidance{number}": features[f"guidance{number}"]}
        return run(f"decode{number}", inputs | indices | guidance)

    image_and_text = {"embed": features["embed"], "text": text}
    scouted = run("scout", image_and_text)
    kept0 = rejection.keep(scouted["votes0"])
    first = decode_stage(1, kept0, image_and_text)
    # A policy must not see the padding, which would count for it as categories without a vote.
    kept1 = rejection.keep(first["votes1"][:, : len(kept0)])
    second = decode_stage(2, kept1, {"x1": first["x1"], "cost1": first["cost1"]})
    kept2 = rejection.keep(second["votes2"][:, : len(kept1)])
    third = decode_stage(3, kept2, {"x2": second["x2"], "cost2": second["cost2"]})
    return Decoded(third["logits"], kept0[kept1][kept2], (len(kept0), len(kept1), len(kept2)))
