"""`Segmenter`: an opened bundle that segments images."""

from collections.abc import Generator, Iterable, Iterator, Sequence
from pathlib import Path
from typing import cast

import numpy as np

from ..bundle import Bundle
from ..engines.backends import open_engines
from ..engines.engine import DeviceEngines, Engines
from ..errors import InputError
from .device_rejection import DeviceRejection
from .images import ImageSource, check_short_side
from .pipeline import EncodedImage, PreparedImage, encode, finish, prepare, warm_up
from .rejection import Rejection, TopK
from .result import Result
from .stream import DecodedTransform, StreamItem, stream_results
from .text import Progress, SentenceTokenizer, TextCache, cached_embeddings, embed_names
from .vocabulary import MAX_CATEGORIES, Vocabulary, VocabularyCache, checked_names

# A vocabulary as users give it: names are embedded first, and `parse_names` reads a text.
Categories = Vocabulary | Sequence[str]


class Segmenter:
    """Segments images with the stages of one bundle. Safe to use from several threads.

    Attributes:
        bundle: the opened bundle.
        backend: name of the backend that runs the stages.
    """

    def __init__(
        self,
        bundle: str | Path,
        backend: str | None = "auto",
        threads: int | None = None,
        vocabularies: int = 4,
        engines: Engines | None = None,
        images_at_once: int = 1,
        device_rejection: bool = False,
        cuda_graphs: bool = False,
    ) -> None:
        """Open a bundle folder; engines open on first use.

        Args:
            bundle: the folder.
            backend: one of `sed_trt.engines.backends.BACKENDS`; None is "auto", the fastest that works.
            threads: CPU threads of one stage; None is one per core, shared out among `images_at_once`.
            vocabularies: how many vocabularies given by their names stay in memory, those used last. Each
                takes 4 T P C bytes on the host and on a GPU as much (150 categories of sed-b: 31 MB); on a
                CPU its folded form 900 T C bytes in FP32 or 450 T C in half precision (86 or 43 MB), at most
                2.5 GiB, above which a vocabulary is not folded.
            engines: of this bundle, if they are open already; `backend`, `threads`, `images_at_once` and
                `cuda_graphs` are then not used.
            images_at_once: on a CPU, images that `stream` takes through all stages side by side, each on its
                share of the cores; a single image then takes longer.
            device_rejection: on a GPU, choose the categories to keep there, with sizes guessed from the last
                image and checked afterwards, so that the host waits once for an image; features of all its
                stages stay in memory until then. `TopK`, `MinPixels`, `Budget` and `KeepAll` can do so; other
                policies go through the host, as all do on a CPU. Off until a GPU has shown what it gains.
            cuda_graphs: on a GPU, launch each stage as a whole, recorded when its shapes first come; each
                recording keeps memory. Off until a GPU has shown what it gains.

        Raises:
            InputError: no bundle there, a file of it is missing, the backend is unknown or does not work
                here, or `threads`, `vocabularies` or `images_at_once` is less than 1.
        """
        if vocabularies < 1:
            raise InputError(f"vocabularies: {vocabularies} is too few, expected at least 1")
        self.bundle = Bundle.open(bundle)
        if engines is None:
            engines = open_engines(self.bundle, backend, threads, images_at_once, cuda_graphs)
        self._engines = engines
        self.backend = self._engines.backend
        self._vocabularies = VocabularyCache(vocabularies)
        self._device_rejection = None
        if device_rejection and engines.buckets is not None:
            self._device_rejection = DeviceRejection(cast(DeviceEngines, engines))

    @property
    def backend_reason(self) -> str:
        """Why that backend was taken, and what it does not take that was built for it, as one phrase."""
        return self._engines.reason

    @property
    def buckets(self) -> tuple[int, ...] | None:
        """Rising numbers that kept categories are padded to; None where the backend pads nothing."""
        return self._engines.buckets

    @property
    def max_categories(self) -> int:
        """Most categories of a vocabulary that the engines take."""
        return self._engines.buckets[-1] if self._engines.buckets else MAX_CATEGORIES

    @property
    def encodes_at_once(self) -> int:
        """Threads that may call `encode_batch` at a time and gain from it."""
        return self._engines.images_at_once or 1

    @property
    def decodes_at_once(self) -> int:
        """Threads that may decode images at a time and gain from it."""
        return max(self._engines.images_at_once or 1, self._engines.decodes_at_once)

    def vocabulary(self, names: Sequence[str], progress: Progress | None = None) -> Vocabulary:
        """Embed category names, or read their embeddings from the cache on disk.

        Args:
            names: the categories, ", " separating synonyms of one; or a text such as "sky, tree, car", or
                "tree, trees; car" with synonyms.
            progress: called with the categories done so far, those of the cache included, and their total;
                not called when the cache has all. Embeddings are cached as they are computed, so that after
                an interruption only the rest is computed.

        Raises:
            InputError: no names, too many, or one is blank, too long or a duplicate.
        """
        checked = checked_names(names)
        return self._vocabularies.get(checked, lambda: self._embed(checked, progress))

    def load(self, names: Sequence[str], progress: Progress | None = None) -> Vocabulary:
        """As `vocabulary`, with what the first image would have to wait for: the copy for the stages.

        Raises:
            InputError: as `vocabulary`, or the GPU's memory is too small.
        """
        vocabulary = self._checked_vocabulary(self.vocabulary(names, progress))
        vocabulary.folded(self._engines)
        return vocabulary

    def encode(self, image: ImageSource, short_side: int | None = 640) -> EncodedImage:
        """Run the part of the network that depends on the image alone.

        `image` and `short_side` are those of a call. The encoded image takes the image's place in calls of
        this segmenter, as often as there are vocabularies or rejection policies to try on it.

        Raises:
            InputError: the image cannot be read, `short_side` is out of range, the engines were built for
                fewer pixels, or the GPU's memory is too small.
        """
        (encoded,) = self.encode_batch([self.prepare(image, short_side)])
        return encoded

    def prepare(self, image: ImageSource, short_side: int | None = 640) -> PreparedImage:
        """Load and resize one image for `encode_batch`, as `encode` does and with the same errors."""
        return prepare(self._engines, image, short_side)

    def encode_batch(self, images: Sequence[PreparedImage]) -> list[EncodedImage]:
        """Encode several images of `prepare` in one run, which a GPU does faster than one after another.

        Raises:
            InputError: there are more than the engines take, or the GPU's memory is too small.
        """
        return encode(self._engines, images)

    def __call__(
        self,
        image: ImageSource | EncodedImage,
        vocabulary: Categories,
        rejection: Rejection | None = None,
        short_side: int | None = 640,
        scores: bool = True,
    ) -> Result:
        """Segment one image.

        Args:
            image: a path, a PIL image, a uint8 RGB array (H, W, 3), or an image that `encode` encoded.
            vocabulary: of `vocabulary`, or what that takes.
            rejection: the policy that drops categories between stages; None is TopK(8).
            short_side: pixels that the shorter side is resized to first (the longer to at most 2560), as in
                the published evaluation; None leaves the image as it is. An encoded image was resized before.
            scores: whether the result has them; without them less is copied from a GPU.

        Returns:
            Labels at the image's own size.

        Raises:
            InputError: the image cannot be read, names are bad, a vocabulary's embeddings are not float32 or
                not of this bundle's shape, `short_side` is out of range, another segmenter encoded the image,
                the engines were built for fewer categories or pixels, or the GPU's memory is too small.
        """
        if isinstance(image, EncodedImage) and image.engines is not self._engines:
            raise InputError(
                "image: it was encoded by another segmenter; encode it with the one that segments it"
            )
        checked = self._checked_vocabulary(vocabulary)
        encoded = image if isinstance(image, EncodedImage) else self.encode(image, short_side)
        policy = rejection or TopK()
        if self._device_rejection is not None:
            return self._device_rejection.finish(encoded, checked, policy, scores)
        return finish(encoded, checked, policy, scores)

    def stream(
        self,
        images: Iterable[ImageSource],
        vocabulary: Categories,
        rejection: Rejection | None = None,
        short_side: int | None = 640,
        batch: int = 4,
        scores: bool = True,
        transform: DecodedTransform | None = None,
    ) -> Generator[StreamItem, None, None]:
        """Segment many images in order; loading, the caller and, on a GPU, the steps of the network overlap.

        On a GPU the encoder runs on `batch` images at a time, so the first result waits for as many (or for
        the end of `images`); on a CPU images are taken one by one, `batch` of them read ahead. An image that
        cannot be read becomes an item with its error; any other exception is raised from the iterator. Memory
        is bounded whatever the number of images; closing the iterator stops the work. Without `scores`
        the results have none, and less is copied from a GPU.

        `transform(engines, decoded)` may change what was decoded before it is labelled; it is called with one
        image at a time, in order, as temporal smoothing needs it.

        Raises:
            InputError: at once, for a bad vocabulary, `short_side` or `batch`.
        """
        _check_batch(batch)
        check_short_side(short_side)
        checked = self._checked_vocabulary(vocabulary)
        policy = rejection or TopK()
        # What was decoded with guessed sizes is not final before it is labelled.
        device = self._device_rejection if transform is None else None
        return stream_results(
            self._engines, images, checked, policy, short_side, batch, scores, device, transform
        )

    def warmup(
        self, vocabulary: Categories | None = None, batch: int = 1, progress: Progress | None = None
    ) -> None:
        """Run every stage at every size that images will need, so that none of them waits for a first run.

        Args:
            vocabulary: sizes that it cannot need are left out. With None all are visited, except that
                `scout` takes the vocabulary's own number of categories, which is then unknown.
            batch: the one that `stream` will be given.
            progress: called with the runs done and their total.

        Raises:
            InputError: as a call does, or `batch` is less than 1.
        """
        _check_batch(batch)
        checked = None if vocabulary is None else self._checked_vocabulary(vocabulary)
        if self._device_rejection is not None:
            self._device_rejection.warm_up()
        warm_up(self._engines, self.bundle.manifest, checked, batch, progress)

    def _checked_vocabulary(self, vocabulary: Categories) -> Vocabulary:
        """Embed names if need be, check the shape for this bundle, and copy the embeddings to the device."""
        if not isinstance(vocabulary, Vocabulary):
            vocabulary = self.vocabulary(vocabulary)
        manifest, text = self.bundle.manifest, vocabulary.text
        shape = (len(vocabulary), len(manifest.templates), manifest.embed_dim)
        if text.shape != shape or text.dtype != np.float32:
            raise InputError(
                f"vocabulary: its embeddings are {text.dtype} {text.shape}, {self.bundle.path} expects "
                f"float32 {shape} (categories, templates, width); "
                "make it with the vocabulary method of this segmenter"
            )
        vocabulary.on_device(self._engines)
        return vocabulary

    def _embed(self, names: tuple[str, ...], progress: Progress | None) -> Vocabulary:
        manifest = self.bundle.manifest

        def embed(missing: Sequence[str]) -> Iterator[np.ndarray]:
            tokenizer = SentenceTokenizer(self.bundle)
            return embed_names(missing, manifest.templates, tokenizer, self._engines["text"])

        return Vocabulary(names, cached_embeddings(names, TextCache.of_bundle(manifest), embed, progress))


def _check_batch(batch: int) -> None:
    if batch < 1:
        raise InputError(f"batch: {batch} is too few, expected at least 1")
