"""Sentences to token ids, equal to open_clip's tokenizer."""

import html
from collections.abc import Sequence

import ftfy
import numpy as np
from tokenizers import Tokenizer

from ..engines.bundle import TOKENIZER_FILE, Bundle
from ..errors import InputError

PADDING_ID = 0


def clean(text: str) -> str:
    """Mend mojibake, resolve HTML entities, collapse white space and lower the case, as open_clip does."""
    return " ".join(html.unescape(html.unescape(ftfy.fix_text(text))).split()).lower()


class SentenceTokenizer:
    """The tokenizer of a bundle."""

    def __init__(self, bundle: Bundle) -> None:
        """Read the bundle's tokenizer; raises InputError when it is missing, altered or cannot be read."""
        path = bundle.verified(TOKENIZER_FILE)
        try:
            self._tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:
            # The tokenizers library raises plain Exception.
            raise InputError(
                f"{path}: is no tokenizer file ({error}); export the checkpoint again"
            ) from error
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self.context_length = bundle.manifest.context_length

    def encode(self, sentences: Sequence[str]) -> np.ndarray:
        """Token ids, int64 (N, context_length): start, sentence, end, zeros.

        Raises:
            InputError: a sentence has more tokens than the text encoder reads.
        """
        tokens = np.full((len(sentences), self.context_length), PADDING_ID, dtype=np.int64)
        encodings = self._tokenizer.encode_batch([clean(sentence) for sentence in sentences])
        for row, encoding, sentence in zip(tokens, encodings, sentences, strict=True):
            if len(encoding.ids) > self.context_length:
                shown = sentence if len(sentence) <= 60 else f"{sentence[:59]}…"
                raise InputError(
                    f"the sentence {shown!r} has {len(encoding.ids)} tokens, "
                    f"the text encoder reads {self.context_length}; shorten the name"
                )
            row[: len(encoding.ids)] = encoding.ids
        return tokens
