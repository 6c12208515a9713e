"""Encoded images that wait for further requests, bounded in number, in bytes and in time."""

import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from ..runtime import EncodedImage

# Nobody guesses one of 2^144 identifiers.
_ID_BYTES = 18


@dataclass(eq=False)
class KeptImage:
    """An encoded image, the name of the bundle that encoded it, and when it was used last."""

    bundle: str
    encoded: EncodedImage
    used: float


class KeptImages:
    """Encoded images by identifiers that cannot be guessed. Used by one thread, that of the event loop."""

    def __init__(
        self, count: int, max_bytes: int, ttl_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Keep nothing yet.

        Args:
            count: images that are kept at most.
            max_bytes: of all of them together.
            ttl_s: seconds that an image is kept after its last use.
            clock: seconds from any start.
        """
        self._count = count
        self._max_bytes = max_bytes
        self._ttl_s = ttl_s
        self._clock = clock
        # From the one used longest ago to the one used last.
        self._images: OrderedDict[str, KeptImage] = OrderedDict()

    def __len__(self) -> int:
        return len(self._images)

    @property
    def nbytes(self) -> int:
        """Bytes of the images and their features."""
        return sum(kept.encoded.nbytes for kept in self._images.values())

    def put(self, bundle: str, encoded: EncodedImage) -> str | None:
        """Keep an image; those used longest ago make room.

        Returns:
            Its identifier, or None where it alone is beyond the bounds.
        """
        encoded = encoded.detached()
        if self._count == 0 or encoded.nbytes > self._max_bytes:
            return None
        name = secrets.token_urlsafe(_ID_BYTES)
        self._images[name] = KeptImage(bundle, encoded, self._clock())
        self.drop_expired()
        surplus = self.nbytes - self._max_bytes
        while len(self._images) > self._count or surplus > 0:
            _, oldest = self._images.popitem(last=False)
            surplus -= oldest.encoded.nbytes
        return name

    def get(self, name: str) -> KeptImage | None:
        """The image of an identifier, which counts as used now; None where it is not kept any longer."""
        self.drop_expired()
        kept = self._images.get(name)
        if kept is not None:
            kept.used = self._clock()
            self._images.move_to_end(name)
        return kept

    def remove(self, name: str) -> bool:
        """Forget an image, and tell whether it was there."""
        return self._images.pop(name, None) is not None

    def drop_expired(self) -> None:
        """Forget the images that nobody used for long enough."""
        latest = self._clock() - self._ttl_s
        while self._images and next(iter(self._images.values())).used < latest:
            self._images.popitem(last=False)
