"""The bundle's tokenizer against open_clip's, over many strings."""

import random
from dataclasses import replace
from pathlib import Path

import open_clip
import pytest

from sed_trt.bundle import Bundle
from sed_trt.runtime import published
from sed_trt.runtime.text import SentenceTokenizer
from sed_trt.runtime.vocabulary import published_names

ODD = [
    "don't", "it's a dog's life", "naïve café", "Straße", "smörgåsbord", "日本語の看板", "красный дом",
    "🙂 emoji 👩‍👩‍👧", "ΟΔΟΣ", "İstanbul", "a\u00a0b\tc\nd", "&amp; &lt;b&gt;", "schÃ¶n", "1984 x 42",
    "e=mc²", "½ cup", "x" * 60, "semi-detached", "rock'n'roll", "(in parentheses)", "C++/C#", "…", "100%",
    "'S 'T 'RE", "ﬁre", "Å",
]  # fmt: skip


def sentences() -> list[str]:
    """At least 10 000: published names in templates, odd ones, and random Unicode."""
    templates = [template("{}") for template in open_clip.OPENAI_IMAGENET_TEMPLATES]
    names = sorted(
        {part for name in published_names() for entry in published(name) for part in entry.split(", ")}
    )
    made = [
        template.format(name) for index, name in enumerate(names) for template in templates[index % 8 :: 8]
    ]
    made += [template.format(name) for name in ODD for template in templates[:4]]
    source = random.Random(0)
    ranges = [(32, 126)] * 4 + [
        (0xA0, 0x24F),
        (0x370, 0x3FF),
        (0x400, 0x4FF),
        (0x3040, 0x30FF),
        (0x1F300, 0x1F5FF),
    ]
    for _ in range(1500):
        first, last = source.choice(ranges)
        made.append("".join(chr(source.randint(first, last)) for _ in range(source.randint(1, 20))))
    return made


CONTEXT = 300


@pytest.fixture(scope="module")
def tokenizer(tiny_bundle: Path) -> SentenceTokenizer:
    """The exported tokenizer as the runtime reads it, with room for long strings."""
    bundle = Bundle.open(tiny_bundle)
    return SentenceTokenizer(replace(bundle, manifest=replace(bundle.manifest, context_length=CONTEXT)))


def test_same_ids_as_open_clip(tokenizer: SentenceTokenizer) -> None:
    made = sentences()
    assert len(made) >= 10_000
    theirs = open_clip.SimpleTokenizer(context_length=CONTEXT)(made).numpy()
    ours = tokenizer.encode(made)
    different = [text for text, a, b in zip(made, ours, theirs, strict=True) if (a != b).any()]
    assert different == []


def test_tokens_frame_and_pad(tokenizer: SentenceTokenizer) -> None:
    row = tokenizer.encode(["a red car"])[0].tolist()
    assert row[0] == 49406 and row[4] == 49407
    assert set(row[5:]) == {0}
