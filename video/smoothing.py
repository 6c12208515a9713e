"""Temporal smoothing: the categories' probabilities are blended with those of the frames before.

At every position of the grid on which the network decides

    P_t = a_t * P_(t-1) + (1 - a_t) * sigmoid(logits_t),    a_t = A * exp(-(D_t / CHANGE)^2)

with A the weight that the user gives and D_t the change of the image there (`flicker.ImageChange`). Where the
image stays the same this is exponential blending. Where it moves, and after a cut, the frame counts alone, so
that nothing is drawn where it no longer is. A bilateral filter weighs neighbours in the same way, in space.

Probabilities are blended because a category that was rejected has no logits: its probability counts as 0,
since it can win at no pixel. The label of a pixel is the category of the highest blended probability.
"""

from dataclasses import replace

import numpy as np

from ..engines.engine import Engine, Engines, Value
from ..errors import InputError
from ..host import source_coordinates
from ..runtime.pipeline import DecodedImage
from ..runtime.rejection import padded
from .flicker import Flicker, ImageChange

# The change of 8-bit colours at which the past counts exp(-1) of its weight.
CHANGE = 16.0
# A category that the frame rejected is forgotten when its probability is below this everywhere.
NEGLIGIBLE = 0.01
# Probabilities whose logits float32 can still tell.
_LOWEST, _HIGHEST = np.float32(1e-30), np.float32(1 - 1e-7)
# The logit of padding, below every other one; as in the exported graphs.
_PADDING = -60000.0


class Smoother:
    """Blends decoded frames in order, and measures flicker before and after; for one video and one thread.

    Attributes:
        before: of the frames' own labels, on the network's grid.
        after: of the blended ones.
    """

    def __init__(self, weight: float) -> None:
        """`weight` is A, the share of the past where the image stays the same.

        Raises:
            InputError: it is not within 0 (included) to 1.
        """
        check_weight(weight)
        self._weight = weight
        self._ids = np.empty(0, dtype=np.int64)
        # Probabilities of those categories, float32 (M, h, w).
        self._maps = np.empty((0, 0, 0), dtype=np.float32)
        self._change: ImageChange | None = None
        self.before, self.after = Flicker(), Flicker()

    def __call__(self, engines: Engines, decoded: DecodedImage) -> DecodedImage:
        """The frame with blended logits, for `label`; its kept ids are all categories that can still win."""
        current = probabilities(engines["label"], decoded.logits, len(decoded.kept_ids))
        if self._change is None:
            self._change = ImageChange(current.shape[1])
        difference = self._change.update(decoded.image)
        self.before.update(decoded.kept_ids[current.argmax(axis=0)], difference)
        if difference is None:
            self._ids, self._maps = decoded.kept_ids, current
        else:
            self._blend(decoded.kept_ids, current, difference)
        self.after.update(self._ids[self._maps.argmax(axis=0)], difference)
        maps = np.clip(self._maps, _LOWEST, _HIGHEST)
        logits = np.log(maps) - np.log1p(-maps)
        padding = len(padded(self._ids, engines.buckets)) - len(self._ids)
        logits = np.pad(logits, ((0, padding), (0, 0), (0, 0)), constant_values=_PADDING)
        return replace(decoded, logits=logits, kept_ids=self._ids)

    def _blend(self, kept_ids: np.ndarray, current: np.ndarray, difference: np.ndarray) -> None:
        past = (self._weight * np.exp(-((difference / CHANGE) ** 2))).astype(np.float32)
        ids = np.union1d(self._ids, kept_ids)
        maps = np.zeros((len(ids), *past.shape), dtype=np.float32)
        maps[np.searchsorted(ids, self._ids)] = past * self._maps
        maps[np.searchsorted(ids, kept_ids)] += (1 - past) * current
        alive = np.isin(ids, kept_ids) | (maps.max(axis=(1, 2)) >= NEGLIGIBLE)
        self._ids, self._maps = ids[alive], maps[alive]


def check_weight(weight: float) -> None:
    """Raise InputError unless `weight` is a weight of the past: 0 to 1, 1 not included."""
    if not 0 <= weight < 1:
        raise InputError(
            f"smooth: {weight} is out of range, expected 0 (every frame alone) to 0.99 (almost only the past)"
        )


def probabilities(engine: Engine, logits: Value, count: int) -> np.ndarray:
    """Probabilities, float32 (count, h, w), of the first `count` of the logits (K', h, w), on the host.

    `engine` runs the stage `label`.
    """
    if isinstance(logits, np.ndarray):
        # Beyond -80 exp would overflow.
        return 1 / (1 + np.exp(-np.maximum(logits[:count], np.float32(-80))))
    # On a device: the score of the best of a single category is that category's probability.
    height, width = logits.shape[1:]
    rows, columns = source_coordinates(height, height), source_coordinates(width, width)
    one = np.zeros(1, dtype=np.int64)
    maps = [
        engine.run({"logits": logits[index : index + 1], "kept": one, "rows": rows, "columns": columns})
        for index in range(count)
    ]
    return np.stack([outputs["scores"] for outputs in maps])
