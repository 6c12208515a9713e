"""The one owner of a bundle's engines: its threads, what they take on at a time, and whether they work."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from ..errors import InputError
from ..runtime import EncodedImage, Rejection, Result, Segmenter, TopK, Vocabulary
from ..runtime.images import ImageSource
from ..runtime.pipeline import PreparedImage
from ..runtime.stream import pool_size
from .admission import Admission
from .http_errors import public_line
from .lanes import Lane
from .metrics import Metrics
from .settings import Settings
from .vocabularies import Vocabularies

Item = TypeVar("Item")
Output = TypeVar("Output")

# Images of more pixels take all steps in a thread of their own, few at a time: one may take a gigabyte.
_LARGE = 4_000_000
_LARGE_AT_ONCE = 2
_RENDER_THREADS = 2
_CHECK_TIMEOUT_S = 10
# A step of one image that takes so many times the timeout of a request will not end any more.
_HUNG_TIMEOUTS = 3


@dataclass(frozen=True, eq=False)
class NewImage:
    """An image that is to be encoded, its number of pixels, and what its shorter side is resized to."""

    source: ImageSource
    pixels: int
    short_side: int | None


@dataclass(frozen=True, eq=False)
class _DecodeJob:
    encoded: EncodedImage
    vocabulary: Vocabulary
    rejection: Rejection


class Owner:
    """One bundle and the threads that run its engines. Its coroutines belong to one event loop.

    Attributes:
        name: of the bundle, in requests and answers.
        segmenter: the opened bundle.
        max_categories: of a vocabulary.
        batch: images that the encoder takes together at most.
        images: the places for requests with an image.
        vocabularies: the embedded ones.
    """

    def __init__(self, name: str, segmenter: Segmenter, settings: Settings, metrics: Metrics) -> None:
        """Start the threads."""
        self.name = name
        self.segmenter = segmenter
        self.max_categories = min(settings.max_categories, segmenter.max_categories)
        # Where images are encoded side by side, each has a thread of its own.
        self.batch = 1 if segmenter.encodes_at_once > 1 else settings.batch
        self.images = Admission(
            "the server is busy with other images", settings.queue, lambda: metrics.rejected("images")
        )
        self.vocabularies = Vocabularies(
            segmenter.load,
            settings.vocabularies_mb * 1_000_000,
            Admission(
                "the server is busy with other vocabularies",
                settings.vocabularies_waiting,
                lambda: metrics.rejected("vocabularies"),
            ),
            lambda hit: metrics.looked_up("vocabulary", hit),
        )
        self._metrics = metrics
        self._hung_after_s = _HUNG_TIMEOUTS * settings.timeout_s
        # The steps whose last run failed with an error that its input does not explain.
        self._failed: set[str] = set()
        self._load: Lane[NewImage, PreparedImage] = Lane(
            "load", self._noting_failure("load", self._prepare), threads=pool_size()
        )
        self._encode: Lane[PreparedImage, EncodedImage] = Lane(
            "encode",
            self._noting_failure("encode", self._encode_batch),
            threads=segmenter.encodes_at_once,
            batch=self.batch,
            wait_s=settings.batch_wait_ms / 1000,
        )
        self._decode: Lane[_DecodeJob, Result] = Lane(
            "decode",
            self._noting_failure("decode", self._decode_and_label),
            threads=segmenter.decodes_at_once,
        )
        self._render: Lane[Callable[[], Any], Any] = Lane("render", _call_all, threads=_RENDER_THREADS)
        self._large: Lane[Callable[[], Any], Any] = Lane(
            "large", self._noting_failure("large", _call_all), threads=_LARGE_AT_ONCE
        )
        self._watch()

    async def encode(self, image: NewImage) -> EncodedImage:
        """Load, resize and encode an image.

        Raises:
            InputError: as `Segmenter.encode`.
        """
        if image.pixels > _LARGE:
            encoded: EncodedImage = await self._large.run(
                lambda: self.segmenter.encode(image.source, image.short_side)
            )
            return encoded
        return await self._encode.run(await self._load.run(image))

    async def segment(
        self,
        image: NewImage | EncodedImage,
        vocabulary: Vocabulary,
        rejection: Rejection,
        render: Callable[[Result], Output],
    ) -> Output:
        """Segment an image, and render the result in a thread.

        Raises:
            InputError: as a call of the segmenter.
        """

        def whole() -> Output:
            encoded = (
                image
                if isinstance(image, EncodedImage)
                else self.segmenter.encode(image.source, image.short_side)
            )
            return render(self.segmenter(encoded, vocabulary, rejection))

        answer: Output
        pixels = image.pixels if isinstance(image, NewImage) else image.image.shape[0] * image.image.shape[1]
        if pixels > _LARGE:
            answer = await self._large.run(whole)
            return answer
        encoded = image if isinstance(image, EncodedImage) else await self.encode(image)
        result = await self._decode.run(_DecodeJob(encoded, vocabulary, rejection))
        answer = await self._render.run(lambda: render(result))
        return answer

    @property
    def public_reason(self) -> str:
        """Why the bundle's backend was taken, without paths."""
        return public_line(self.segmenter.backend_reason, [str(self.segmenter.bundle.path)])

    async def healthy(self) -> bool:
        """Whether the engines work.

        After a failure that no input explains, a blank image is taken through all steps to find out.
        """
        if max(lane.longest_run_s for lane in self._lanes.values()) > self._hung_after_s:
            return False
        if self._failed:
            # A step that ends well clears its own failure, be it with this image or with another.
            with suppress(Exception):
                await asyncio.wait_for(self._segment_blank(), _CHECK_TIMEOUT_S)
                self._failed.clear()
        return not self._failed

    def close(self) -> None:
        """Drop what waits and end the threads after the work under way."""
        self.vocabularies.close()
        for lane in self._lanes.values():
            lane.close()

    @property
    def _lanes(self) -> dict[str, Lane[Any, Any]]:
        """The lanes of images by their step."""
        return {
            "load": self._load,
            "encode": self._encode,
            "decode": self._decode,
            "render": self._render,
            "large": self._large,
        }

    def _prepare(self, images: Sequence[NewImage]) -> list[PreparedImage]:
        return [self.segmenter.prepare(image.source, image.short_side) for image in images]

    def _encode_batch(self, images: Sequence[PreparedImage]) -> list[EncodedImage]:
        encoded = self.segmenter.encode_batch(images)
        self._metrics.batch_done(self.name, len(images))
        return encoded

    def _decode_and_label(self, jobs: Sequence[_DecodeJob]) -> list[Result]:
        return [self.segmenter(job.encoded, job.vocabulary, job.rejection) for job in jobs]

    def _noting_failure(
        self, step: str, work: Callable[[Sequence[Item]], list[Output]]
    ) -> Callable[[Sequence[Item]], list[Output]]:
        """`work` that notes whether its last run failed with anything but an error of its input."""

        def noting(items: Sequence[Item]) -> list[Output]:
            try:
                outputs = work(items)
            except InputError:
                raise
            except Exception:
                self._failed.add(step)
                raise
            self._failed.discard(step)
            return outputs

        return noting

    async def _segment_blank(self) -> None:
        manifest = self.segmenter.bundle.manifest
        side = manifest.image_size
        blank = NewImage(np.zeros((side, side, 3), dtype=np.uint8), side * side, None)
        # Neither the text encoder nor its queue is needed for this.
        text = np.zeros((1, len(manifest.templates), manifest.embed_dim), dtype=np.float32)
        text[..., 0] = 1
        await self.segment(blank, Vocabulary(("",), text), TopK(), lambda _: None)

    def _watch(self) -> None:
        """Show the owner's state among the metrics."""
        for step, lane in self._lanes.items():
            self._metrics.watch(
                "queued_images",
                "Images that wait for a step.",
                lane.count_waiting,
                bundle=self.name,
                step=step,
            )
        self._metrics.watch(
            "images_in_flight", "Requests with an image.", lambda: self.images.taken, bundle=self.name
        )
        self._metrics.watch(
            "vocabularies_bytes",
            "Memory of embedded vocabularies.",
            lambda: self.vocabularies.nbytes,
            bundle=self.name,
        )


def _call_all(jobs: Sequence[Callable[[], Any]]) -> list[Any]:
    return [job() for job in jobs]
