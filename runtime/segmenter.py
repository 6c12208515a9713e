"""The runtime's front: a bundle opened, ready to segment."""

import threading
from collections.abc import Generator, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from ..bundle import Bundle
from ..engines.backends import open_engines
from ..errors import InputError
from .images import Source, check_short_side
from .pipeline import EncodedPicture, encode, finish, prepare, warm_up
from .rejection import Rejection, TopK
from .result import Result
from .stream import StreamItem, stream_results
from .text import Progress, SentenceTokenizer, TextCache, cached_embeddings, embed_names
from .vocabulary import HeldVocabularies, HeldVocabulary, Vocabulary, checked_names


class Segmenter:
    """Segments pictures with the stages of one bundle. Safe to use from several threads.

    Attributes:
        bundle: the opened bundle.
        backend: name of the backend that runs the stages.
        backend_reason: why that backend was taken, as one phrase.
    """

    def __init__(self, bundle: str | Path, backend: str | None = "auto", threads: int | None = None) -> None:
        """Open a bundle folder; engines open on first use.

        `backend` is one of `sed_trt.engines.backends.BACKENDS`, None being "auto"; `threads` bounds the CPU
        threads of one stage, None being one per core.

        Raises:
            InputError: no bundle there, a file of it is missing, or the backend is unknown or not there.
        """
        self.bundle = Bundle.open(bundle)
        self._engines = open_engines(self.bundle, backend, threads)
        self.backend = self._engines.backend
        self.backend_reason = self._engines.reason
        self._latest: Vocabulary | None = None
        self._latest_lock = threading.Lock()
        self._held = HeldVocabularies(self._engines)

    def vocabulary(self, names: Sequence[str], progress: Progress | None = None) -> Vocabulary:
        """Embed category names, or read from the cache on disk the embeddings of those that it has.

        A name may hold synonyms separated by ", ". Embeddings are kept as they are made, so that after an
        interruption only the rest is made. `progress` is called with the categories done so far, those of
        the cache included, and their total, and not at all when the cache has all.

        Raises:
            InputError: no names, too many, or one is blank, too long or a duplicate.
        """
        checked = checked_names(names)
        with self._latest_lock:
            if self._latest is None or self._latest.names != checked:
                self._latest = self._embedded(checked, progress)
            return self._latest

    def encode(self, image: Source, short_side: int | None = 640) -> EncodedPicture:
        """Run the part of the network that depends on the picture alone.

        `image` and `short_side` are those of a call. What comes out takes the picture's place in calls of
        this segmenter, as often as there are vocabularies or rejection policies to try on it.

        Raises:
            InputError: the picture cannot be read, `short_side` is out of range, the engines were built for
                fewer pixels, or the GPU's memory is too small.
        """
        (encoded,) = encode(self._engines, [prepare(self._engines, image, short_side)])
        return encoded

    def __call__(
        self,
        image: Source | EncodedPicture,
        vocabulary: Vocabulary | Sequence[str],
        rejection: Rejection | None = None,
        short_side: int | None = 640,
    ) -> Result:
        """Segment one picture: a path, a PIL image, a uint8 RGB array (H, W, 3), or what `encode` made of it.

        `rejection` is TopK(8) where None. The picture's shorter side is first resized to `short_side` pixels
        (the longer to at most 2560), as in the published evaluation; None leaves it as it is. For
        an encoded picture `encode` was told that. Labels come at the picture's own size.

        Raises:
            InputError: the picture cannot be read, names are bad, a vocabulary's embeddings are not float32
                or not of this bundle's shape, `short_side` is out of range, another segmenter encoded the
                picture, the engines were built for less (categories, pixels), or the GPU's memory is too
                small.
        """
        if isinstance(image, EncodedPicture) and image.engines is not self._engines:
            raise InputError(
                "image: it was encoded by another segmenter; encode it with the one that segments it"
            )
        embedded = self._held_vocabulary(vocabulary)
        encoded = image if isinstance(image, EncodedPicture) else self.encode(image, short_side)
        return finish(encoded, embedded, rejection or TopK())

    def stream(
        self,
        images: Iterable[Source],
        vocabulary: Vocabulary | Sequence[str],
        rejection: Rejection | None = None,
        short_side: int | None = 640,
        batch: int = 4,
    ) -> Generator[StreamItem, None, None]:
        """Segment many pictures in order, overlapping loading, encoder, decoder, labelling and the caller.

        The encoder runs on `batch` pictures at a time (8-bit bundles on one), so the first result waits for
        as many (or for the end of `images`). A picture that cannot be read becomes an item with its error;
        any other exception is raised from the iterator. Memory is bounded whatever the number of pictures;
        closing the iterator stops the work.

        Raises:
            InputError: at once, for a bad vocabulary, `short_side` or `batch`.
        """
        if batch < 1:
            raise InputError(f"batch: {batch} is too few, expected at least 1")
        check_short_side(short_side)
        embedded = self._held_vocabulary(vocabulary)
        # 8-bit products take their scale from the whole batch: a picture's labels would depend on the others.
        batch = 1 if self.bundle.manifest.precision == "int8" else batch
        return stream_results(self._engines, images, embedded, rejection or TopK(), short_side, batch)

    def warmup(
        self,
        vocabulary: Vocabulary | Sequence[str] | None = None,
        batch: int = 1,
        progress: Progress | None = None,
    ) -> None:
        """Run every stage at every size that pictures will need, so that none of them waits for a first run.

        With a `vocabulary` sizes that it cannot need are left out; without one its own number of categories,
        which `scout` and `decode1` take unpadded, is not covered. `batch` is the one that `stream` will be
        given. `progress` is called with the runs done and their total.

        Raises:
            InputError: as a call does, or `batch` is less than 1.
        """
        if batch < 1:
            raise InputError(f"batch: {batch} is too few, expected at least 1")
        text = None if vocabulary is None else self._held_vocabulary(vocabulary).text
        warm_up(self._engines, self.bundle.manifest, text, batch, progress)

    def _held_vocabulary(self, vocabulary: Vocabulary | Sequence[str]) -> HeldVocabulary:
        return self._held(self._checked_vocabulary(vocabulary))

    def _checked_vocabulary(self, vocabulary: Vocabulary | Sequence[str]) -> Vocabulary:
        if not isinstance(vocabulary, Vocabulary):
            return self.vocabulary(vocabulary)
        shape, text = self._text_shape(len(vocabulary)), vocabulary.text
        if text.shape != shape or text.dtype != np.float32:
            raise InputError(
                f"vocabulary: its embeddings are {text.dtype} {text.shape}, {self.bundle.path} expects "
                f"float32 {shape} (categories, templates, width); "
                "make it with the vocabulary method of this segmenter"
            )
        return vocabulary

    def _embedded(self, names: tuple[str, ...], progress: Progress | None) -> Vocabulary:
        manifest = self.bundle.manifest

        def embed(missing: Sequence[str]) -> Iterator[np.ndarray]:
            tokenizer = SentenceTokenizer(self.bundle)
            return embed_names(missing, manifest.templates, tokenizer, self._engines["text"])

        return Vocabulary(names, cached_embeddings(names, TextCache.of_bundle(manifest), embed, progress))

    def _text_shape(self, categories: int) -> tuple[int, int, int]:
        return categories, len(self.bundle.manifest.templates), self.bundle.manifest.embed_dim
