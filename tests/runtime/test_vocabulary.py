"""Vocabularies: names, files, embeddings and their cache."""

import copy
import json
import os
import pickle
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest

from sed_trt.bundle import Bundle
from sed_trt.errors import InputError
from sed_trt.runtime import Segmenter, Vocabulary, parse_names, published, read_vocabulary
from sed_trt.runtime import text as embedding
from sed_trt.runtime.text import SentenceTokenizer, embed_names
from sed_trt.runtime.vocabulary import VocabularyCache, checked_names, clean, published_names
from sed_trt.tests.fakes.engines import FakeEngines, colour_vocabulary

TEMPLATES = ("a {}.", "the {}")
# For what comes at once unless a test fails.
PATIENCE_S = 60.0


class WordTokenizer:
    """Numbers each sentence by its content, so that a fake text encoder can tell them apart."""

    context_length = 4

    def encode(self, sentences: Sequence[str]) -> np.ndarray:
        return np.array([[len(text), sum(map(ord, text)), ord(text[0]), 1] for text in sentences])


class FakeText:
    """A text encoder: unit vectors that follow from the tokens."""

    name = "text"

    def __init__(self) -> None:
        self.batches: list[int] = []

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        self.batches.append(len(inputs["tokens"]))
        return {"embedding": embedded(inputs["tokens"])}


def embedded(tokens: np.ndarray) -> np.ndarray:
    waves = np.sin(tokens.astype(np.float64) @ np.arange(1, 21).reshape(4, 5)).astype(np.float32)
    return waves / np.linalg.norm(waves, axis=-1, keepdims=True)


def embed(names: list[str], engine: FakeText | None = None) -> np.ndarray:
    tokenizer: SentenceTokenizer = WordTokenizer()  # type: ignore[assignment]
    return np.concatenate(list(embed_names(names, TEMPLATES, tokenizer, engine or FakeText())))


def test_synonyms_are_averaged_per_template() -> None:
    text = embed(["sky", "tree, trees"])
    assert text.shape == (2, 2, 5)
    assert text.dtype == np.float32
    for row, template in enumerate(TEMPLATES):
        pair = embedded(WordTokenizer().encode([template.replace("{}", word) for word in ("tree", "trees")]))
        mean = pair.mean(axis=0)
        assert np.allclose(text[1, row], mean / np.linalg.norm(mean), atol=1e-6)
    assert np.allclose(np.linalg.norm(text, axis=-1), 1, atol=1e-6)


def test_batches_do_not_change_the_embeddings(monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"name {number}, other {number}" if number % 3 else f"name {number}" for number in range(50)]
    whole = embed(names)
    monkeypatch.setattr(embedding, "SENTENCES", 3)
    engine = FakeText()
    assert np.array_equal(embed(names, engine), whole)
    assert max(engine.batches) <= 3


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "holds no category names"),
        ("", "holds no category names"),
        ("sky,,tree", "category 2 is blank"),
        ("sky;;tree", "category 2 is blank"),
        ("tree,, trees; sky", "category 1, 'tree, , trees', holds a blank synonym"),
        (["sky", ""], "category 2 is blank"),
        ([" \t\n"], "category 1 is blank"),
        (["tree, , trees"], "blank synonym"),
        (["sky", "tree", "sky"], "category 3, 'sky', is a duplicate of category 1"),
        (["Sky", "sky "], "category 2, 'sky ', is a duplicate of category 1"),
        (["sky", 3], "category 2 is 3, expected text"),
        (["x" * 10_000], "has 10000 characters, expected at most 1000"),
        (["\udcff"], "not valid Unicode"),
        ([f"n{number}" for number in range(65536)], "65536 categories, expected at most 65535"),
    ],
)
def test_bad_names(names: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        checked_names(names)


def test_good_names() -> None:
    assert checked_names([" sky", "Bäckerei", "木, 樹", "x" * 1000]) == (
        "sky",
        "Bäckerei",
        "木, 樹",
        "x" * 1000,
    )


def test_clean_mends_and_lowers() -> None:
    assert clean("  Red &amp;amp; <b>\n Blue  caf\u00c3\u00a9 ") == "red & <b> blue café"


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("ade150", 150),
        ("ade847", 847),
        ("coco", 171),
        ("pc459", 459),
        ("pc59", 59),
        ("voc20", 20),
        ("voc20b", 59),
    ],
)
def test_published_lists_are_valid(name: str, count: int) -> None:
    assert len(checked_names(published(name))) == count
    assert read_vocabulary(name) == published(name)


def test_unknown_vocabulary_lists_the_choices() -> None:
    choices = ", ".join(published_names())
    for read in (published, read_vocabulary):
        with pytest.raises(InputError, match=choices):
            read("ade")


@pytest.mark.parametrize(
    ("text", "names"),
    [
        # Neither ";" nor a line break: commas separate categories.
        ("sky", ["sky"]),
        ("sky, tree,red car", ["sky", "tree", "red car"]),
        (" sky, tree,\n", ["sky", "tree"]),
        ("sky,,tree", ["sky", "", "tree"]),
        # Otherwise commas separate synonyms.
        ("tree, trees; car", ["tree, trees", "car"]),
        ("tree,trees ;car;", ["tree, trees", "car"]),
        ("tree, trees;", ["tree, trees"]),
        ("sky\ntree,  trees,\r\n\n car ", ["sky", "tree, trees", "car"]),
        ("sky; cloud\ntree", ["sky", "cloud", "tree"]),
        ("sky;;car", ["sky", "", "car"]),
        (";sky", ["", "sky"]),
        ("tree,,trees; car", ["tree, , trees", "car"]),
        # Nothing at all.
        ("", []),
        (" \n\n", []),
        (";", [""]),
        (",", [""]),
    ],
)
def test_names_in_a_text(text: str, names: list[str]) -> None:
    assert parse_names(text) == names


def test_vocabulary_files(tmp_path: Path) -> None:
    lines, array = tmp_path / "list.txt", tmp_path / "list.json"
    lines.write_bytes("\ufeffsky\r\n\r\n tree, trees \n木".encode())
    array.write_text(json.dumps(["sky", "tree, trees", "木"]))
    assert read_vocabulary(lines) == read_vocabulary(str(array)) == ["sky", "tree, trees", "木"]


@pytest.mark.parametrize(
    ("content", "names"),
    [
        # A single line is one category, as any other line.
        ("tree, trees", ["tree, trees"]),
        ("tree,trees,\n", ["tree, trees"]),
        ("tree, trees; car\nsky;\n", ["tree, trees", "car", "sky"]),
        ("sky;;car", ["sky", "", "car"]),
    ],
)
def test_separators_in_a_text_file(content: str, names: list[str], tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text(content)
    assert read_vocabulary(tmp_path / "list.txt") == names


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("a.txt", b"", "holds no category names"),
        ("a.txt", b"\xff\xfe\x00", "cannot be read as UTF-8"),
        ("a.json", b"[", "is not JSON"),
        ("a.json", b'{"sky": 1}', "is not a list of names"),
        ("a.json", b'["sky", 1]', "is not a list of names"),
        ("a.json", b"[]", "holds no category names"),
    ],
)
def test_bad_vocabulary_files(file: str, content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / file
    path.write_bytes(content)
    with pytest.raises(InputError, match=message) as raised:
        read_vocabulary(path)
    assert str(path) in str(raised.value)


def test_what_is_no_vocabulary_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for source in ("sky, tree, " * 30, tmp_path / "pipe", "a\0b", "/dev/zero"):
        with pytest.raises(InputError, match="is neither a file nor a published vocabulary"):
            read_vocabulary(source)


def test_copies_of_a_vocabulary_hold_no_device_memory() -> None:
    vocabulary = colour_vocabulary()
    engines = FakeEngines()
    vocabulary.on_device(engines)
    for each in (pickle.loads(pickle.dumps(vocabulary)), copy.deepcopy(vocabulary)):
        assert each.names == vocabulary.names
        assert np.array_equal(each.text, vocabulary.text)
        each.on_device(engines)
    assert engines.uploads == 3


def test_each_set_of_engines_gets_one_copy_of_a_vocabulary() -> None:
    vocabulary, engines = colour_vocabulary(), [FakeEngines(), FakeEngines()]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: vocabulary.on_device(engines[number % 2]), range(32)))
    assert [each.uploads for each in engines] == [1, 1]


class BlockingText:
    """Embeds any names by zeros; blocks for those in `blocked` until `gate` is set, and counts its calls."""

    def __init__(self, *blocked: str) -> None:
        self.blocked = blocked
        self.entered, self.gate = threading.Event(), threading.Event()
        self.calls: list[tuple[str, ...]] = []

    def __call__(self, *names: str) -> Vocabulary:
        self.calls.append(names)
        if set(names) & set(self.blocked):
            self.entered.set()
            assert self.gate.wait(PATIENCE_S)
        return Vocabulary(names, np.zeros((len(names), 1, 3), np.float32))


def test_vocabularies_neither_block_nor_displace_each_other() -> None:
    """While one thread embeds "slow", others go on with theirs; all are embedded once."""
    cache, embed = VocabularyCache(3), BlockingText("slow")

    def get(name: str) -> Vocabulary:
        return cache.get((name,), lambda: embed(name))

    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(get, "slow")
        assert embed.entered.wait(PATIENCE_S)
        first = [get("sky"), get("tree")]
        assert [get("sky"), get("tree")] * 5 == first * 5
        assert not slow.done()
        embed.gate.set()
        assert get("slow") is slow.result(PATIENCE_S)
    assert [get("sky"), get("tree"), get("slow")] == [*first, slow.result()]
    assert embed.calls == [("slow",), ("sky",), ("tree",)]


def test_many_threads_embed_a_vocabulary_once() -> None:
    cache, embed = VocabularyCache(2), BlockingText("sky")
    together = threading.Barrier(9, timeout=PATIENCE_S)

    def get() -> Vocabulary:
        together.wait()
        return cache.get(("sky",), lambda: embed("sky"))

    with ThreadPoolExecutor(8) as pool:
        futures = [pool.submit(get) for _ in range(8)]
        together.wait()
        assert embed.entered.wait(PATIENCE_S)
        cache.get(("tree",), lambda: embed("tree"))
        embed.gate.set()
        vocabularies = {future.result(PATIENCE_S) for future in futures}
    assert len(vocabularies) == 1
    assert embed.calls.count(("sky",)) == 1


def test_the_vocabulary_used_longest_ago_makes_room() -> None:
    cache, embed = VocabularyCache(2), BlockingText()
    for name in ("sky", "tree", "sky", "car", "sky", "tree"):
        cache.get((name,), lambda name=name: embed(name))  # type: ignore[misc]
    assert embed.calls == [("sky",), ("tree",), ("car",), ("tree",)]


def test_names_that_cannot_be_embedded_take_no_room() -> None:
    cache, embed = VocabularyCache(1), BlockingText()

    def fail() -> NoReturn:
        raise InputError("too long")

    sky = cache.get(("sky",), lambda: embed("sky"))
    for _ in range(2):
        with pytest.raises(InputError, match="too long"):
            cache.get(("bad",), fail)
    assert cache.get(("sky",), lambda: embed("sky")) is sky
    bad = cache.get(("bad",), lambda: embed("bad"))
    assert cache.get(("bad",), fail) is bad


def test_tokens_are_padded_and_framed(tiny_bundle: Path) -> None:
    tokenizer = SentenceTokenizer(Bundle.open(tiny_bundle))
    tokens = tokenizer.encode(["a photo of a car.", "Ünïcode 木 &amp; more"])
    assert tokens.dtype == np.int64
    assert tokens.shape == (2, tokenizer.context_length)
    assert tokens[0, :8].tolist() == [49406, 320, 1125, 539, 320, 1615, 269, 49407]
    assert (tokens[0, 8:] == 0).all()
    assert 49407 in tokens[1]


def test_too_long_a_name_is_never_cut(tiny_bundle: Path) -> None:
    with pytest.raises(InputError, match=r"'.*zebra 木 木.*' has \d+ tokens, .* shorten the name"):
        Segmenter(tiny_bundle).vocabulary(["sky", "zebra " + "木 " * 60])


def test_embeddings_are_unit_length_and_cached(tiny_bundle: Path) -> None:
    calls: list[int] = []

    def progress(done: int, total: int) -> None:
        calls.append(done)

    names = ["sky", "tree, trees", "木"]
    first = Segmenter(tiny_bundle).vocabulary(names, progress)
    assert calls
    assert first.names == tuple(names)
    assert np.allclose(np.linalg.norm(first.text, axis=-1), 1, atol=1e-5)
    calls.clear()
    second = Segmenter(tiny_bundle).vocabulary(names, progress)
    assert not calls
    assert np.array_equal(first.text, second.text)


def test_vocabularies_share_the_embeddings_of_common_names(tiny_bundle: Path) -> None:
    calls: list[tuple[int, int]] = []
    first = Segmenter(tiny_bundle).vocabulary(["sky", "tree, trees"])
    second = Segmenter(tiny_bundle).vocabulary(
        ["car", "tree, trees", "sky"], lambda *call: calls.append(call)
    )
    assert calls == [(3, 3)]
    assert np.array_equal(second.text[[2, 1]], first.text)


def test_unwritable_cache_costs_only_time(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("SED_TRT_CACHE", str(tmp_path / "file"))
    assert len(Segmenter(tiny_bundle).vocabulary(["sky"])) == 1
    assert "not cached" in caplog.text
