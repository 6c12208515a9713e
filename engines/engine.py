"""What every backend offers: one stage, run on named arrays."""

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from .device_array import DeviceArray

# What goes into a stage and comes out of it: on the host, or where the backend computes.
Value = np.ndarray | DeviceArray

# Outputs that come as numpy arrays from every backend. The others may stay on the backend's device.
HOST_OUTPUTS = frozenset({"embedding", "votes0", "votes1", "votes2", "labels", "scores"})
# Outputs for the eyes of people who compare stages. A backend with a device leaves them out.
UNREAD_OUTPUTS = frozenset({"logits0", "logits1", "logits2"})


class Engine(Protocol):
    """A stage ready to run. Safe to use from several threads at once."""

    @property
    def name(self) -> str:
        """Name of the stage, for example "decode1"."""

    def run(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Run the stage on values whose names, dtypes and shapes are those of the manifest, C-contiguous.

        The outputs of `HOST_OUTPUTS` are numpy arrays. Every other one is a `Value`, which callers hand to
        the next stage as it came or sliced along its first axis, so that a backend may keep it on its device.

        Raises:
            InputError: a shape is outside what the engine was built for, or the device's memory is too small.
        """
