"""The order of the decoder's stages, with a rejection after each of the first three."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ..engines.backends import Engines
from .rejection import Rejection
from .timing import timed


@dataclass(frozen=True, eq=False)
class Decoded:
    """What the decoder leaves of one image.

    Attributes:
        logits: float32 (K, 8h, 8h), one map per surviving category.
        kept_ids: int64 (K,), rising indices of the survivors in the vocabulary.
        kept: categories alive after `scout`, `decode1` and `decode2`.
    """

    logits: np.ndarray
    kept_ids: np.ndarray
    kept: tuple[int, int, int]


def decode(
    engines: Engines,
    features: Mapping[str, np.ndarray],
    text: np.ndarray,
    rejection: Rejection,
    timings: dict[str, float],
) -> Decoded:
    """Run `scout` and the three decoder stages on one image.

    `features` are the outputs of the stage `image` with a batch axis of 1, `text` is float32 (T, P, C). Sets
    the milliseconds of each stage in `timings`.
    """

    def run(stage: str, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        engine = engines[stage]
        with timed(timings, stage):
            return engine.run(inputs)

    image_and_text = {"embed": features["embed"], "text": text}
    scouted = run("scout", image_and_text)
    kept0 = rejection.keep(scouted["votes0"])
    first = run("decode1", image_and_text | {"kept0": kept0, "guidance1": features["guidance1"]})
    kept1 = rejection.keep(first["votes1"])
    second = run(
        "decode2",
        {"x1": first["x1"], "cost1": first["cost1"], "kept1": kept1, "guidance2": features["guidance2"]},
    )
    kept2 = rejection.keep(second["votes2"])
    third = run(
        "decode3",
        {"x2": second["x2"], "cost2": second["cost2"], "kept2": kept2, "guidance3": features["guidance3"]},
    )
    return Decoded(third["logits"], kept0[kept1][kept2], (len(kept0), len(kept1), len(kept2)))
