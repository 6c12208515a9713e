"""What every backend offers: one stage, run on named arrays."""

from collections.abc import Mapping
from typing import Protocol

import numpy as np


class Engine(Protocol):
    """A stage ready to run. Safe to use from several threads at once."""

    @property
    def name(self) -> str:
        """Name of the stage, for example "decode1"."""

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Run the stage on C-contiguous arrays whose names, dtypes and shapes are those of the manifest.

        Callers look into vote tables and label maps only; every other output is handed to the next stage as
        it came or sliced along its first axis, so that a backend may keep it on its device.
        """
