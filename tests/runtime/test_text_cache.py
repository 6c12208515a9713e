"""The cache of text embeddings: shared, resumable, and never believed when damaged."""

import itertools
import multiprocessing
import signal
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sed_trt.bundle import TOKENIZER_FILE, FileRecord, Manifest
from sed_trt.runtime import text as cached_embedding
from sed_trt.runtime.text import TextCache, cached_embeddings
from sed_trt.tests.fakes.manifest import fake_manifest

PROMPTS, WIDTH = 2, 300


@pytest.fixture
def cache() -> TextCache:
    return TextCache.of_bundle(manifest())


def manifest(**changes: object) -> Manifest:
    files = {name: FileRecord("00", 1) for name in ("text.onnx", TOKENIZER_FILE)}
    sizes = {"templates": ("{}",) * PROMPTS, "embed_dim": WIDTH}
    return replace(fake_manifest(), **{"files": files, **sizes, **changes})  # type: ignore[arg-type]


def rows(names: Sequence[str]) -> np.ndarray:
    """Embeddings that follow from the names."""
    seeds = [np.random.default_rng(list(name.encode())) for name in names]
    return np.stack([seed.random((PROMPTS, WIDTH), np.float32) for seed in seeds])


def numbered(count: int) -> list[str]:
    return [f"name {number}" for number in range(count)]


class Encoder:
    """Embeds three names at a time, and is interrupted after so many batches."""

    def __init__(self, batches: int | None = None) -> None:
        self.batches = batches
        self.names: list[str] = []

    def __call__(self, names: Sequence[str]) -> Iterator[np.ndarray]:
        for start in range(0, len(names), 3):
            if self.batches is not None and start == 3 * self.batches:
                raise KeyboardInterrupt
            self.names += names[start : start + 3]
            yield rows(names[start : start + 3])


def test_what_is_stored_is_loaded_and_the_rest_is_missing(cache: TextCache) -> None:
    assert cache.load(["a", "b"])[1] == [0, 1]
    cache.store(["b", "木, 樹"], rows(["b", "木, 樹"]))
    text, missing = cache.load(["a", "木, 樹", "c", "b"])
    assert missing == [0, 2]
    assert np.array_equal(text[[1, 3]], rows(["木, 樹", "b"]))


@pytest.mark.parametrize("every", [0.0, 1e9])
def test_an_interrupted_vocabulary_resumes(
    every: float, cache: TextCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cached_embedding, "STORE_EVERY_S", every)
    names = numbered(20)
    with pytest.raises(KeyboardInterrupt):
        cached_embeddings(names, cache, Encoder(batches=4))
    calls: list[tuple[int, int]] = []
    encoder = Encoder()
    text = cached_embeddings(names, cache, encoder, lambda *call: calls.append(call))
    assert encoder.names == names[12:]
    assert calls == [(15, 20), (18, 20), (20, 20)]
    assert np.array_equal(text, rows(names))
    assert np.array_equal(cached_embeddings(names, cache, Encoder(batches=0)), text)


def test_a_killed_process_loses_only_the_last_seconds(
    cache: TextCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cached_embedding, "STORE_EVERY_S", 0.0)
    made = cached_embeddings(numbered(9), cache, kept_before_each(cache))
    assert np.array_equal(made, rows(numbered(9)))


def kept_before_each(cache: TextCache) -> Callable[[Sequence[str]], Iterator[np.ndarray]]:
    """An encoder that finds what it gave before on disk already."""

    def embed(names: Sequence[str]) -> Iterator[np.ndarray]:
        for position, name in enumerate(names):
            assert TextCache.of_bundle(manifest()).load(names)[1] == list(range(position, len(names)))
            yield rows([name])

    return embed


def test_the_number_of_files_is_bounded(cache: TextCache) -> None:
    for number in range(30):
        cache.store([f"{number}"], rows([f"{number}"]))
    assert {path.suffix for path in cache.path.parent.iterdir()} <= {".sqlite", ".lock"}
    assert len(list(cache.path.parent.iterdir())) <= 2


def damage_content(path: Path) -> None:
    content = path.read_bytes()
    start = content.index(rows(["a"]).tobytes()[:64])
    path.write_bytes(content[:start] + bytes([content[start] ^ 1]) + content[start + 1 :])


def damage_length(path: Path) -> None:
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("UPDATE embeddings SET embedding = substr(embedding, 9) WHERE name = 'a'")


@pytest.mark.parametrize("damage", [damage_content, damage_length])
def test_one_damaged_embedding_is_made_again(damage: Callable[[Path], None], cache: TextCache) -> None:
    cache.store(["a", "b"], rows(["a", "b"]))
    damage(cache.path)
    assert cache.load(["a", "b"])[1] == [0]
    cache.store(["a"], rows(["a"]))
    text, missing = cache.load(["a", "b"])
    assert not missing
    assert np.array_equal(text, rows(["a", "b"]))


@pytest.mark.parametrize("how", ["truncated", "header", "foreign", "empty", "other table"])
def test_a_damaged_file_is_made_again(how: str, cache: TextCache) -> None:
    names = numbered(40)
    cache.store(names, rows(names))
    content = cache.path.read_bytes()
    if how == "other table":
        cache.path.unlink()
        with closing(sqlite3.connect(cache.path)) as database, database:
            database.execute("CREATE TABLE embeddings (other TEXT)")
    else:
        cache.path.write_bytes(
            {
                "truncated": content[: len(content) // 2],
                "header": b"X" * 100 + content[100:],
                "foreign": b"something else " * 100,
                "empty": b"",
            }[how]
        )
    text = cached_embeddings(names, cache, Encoder())
    assert np.array_equal(text, rows(names))
    assert np.array_equal(cached_embeddings(names, cache, Encoder(batches=0)), text)


def test_another_shape_is_not_taken(cache: TextCache) -> None:
    cache.store(["a"], rows(["a"]))
    cache.shape = (PROMPTS, WIDTH + 1)
    assert cache.load(["a"])[1] == [0]


def test_the_file_follows_what_makes_embeddings() -> None:
    other = {name: FileRecord("11", 1) for name in ("text.onnx", TOKENIZER_FILE)}
    changed = [
        manifest(),
        manifest(templates=("the {}",)),
        manifest(files={**manifest().files, "text.onnx": other["text.onnx"]}),
        manifest(files={**manifest().files, TOKENIZER_FILE: other[TOKENIZER_FILE]}),
    ]
    assert len({TextCache.of_bundle(each).path for each in changed}) == 4
    assert TextCache.of_bundle(manifest(precision="fp16")).path == TextCache.of_bundle(manifest()).path


def test_each_digest_has_a_cache_of_its_own() -> None:
    """As training uses it, with a digest of the weights of its text encoder."""
    first, second = (TextCache(digit * 64, (PROMPTS, WIDTH)) for digit in "ab")
    first.store(["a"], rows(["a"]))
    assert second.load(["a"])[1] == [0]
    assert TextCache("a" * 64, (PROMPTS, WIDTH)).load(["a"])[1] == []


def store_many(names: Sequence[str]) -> None:
    cache = TextCache.of_bundle(manifest())
    for name in names:
        cache.store([name], rows([name]))


def test_two_processes_write_at_once(cache: TextCache) -> None:
    names = numbered(24)
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=store_many, args=(names[part::2],)) for part in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    text, missing = cache.load(names)
    assert not missing
    assert np.array_equal(text, rows(names))


def store_without_end() -> None:
    for number in itertools.count():
        store_many([f"name {number}"])


def test_a_killed_process_leaves_a_whole_cache(cache: TextCache) -> None:
    """SIGKILL at any moment: what is read afterwards is right, and the cache can be written."""
    names = numbered(200)
    worker = multiprocessing.get_context("fork").Process(target=store_without_end)
    worker.start()
    while worker.is_alive() and cache.load(names[:3])[1]:
        pass
    worker.kill()
    worker.join(60)
    assert worker.exitcode == -signal.SIGKILL
    text, missing = cache.load(names)
    present = sorted(set(range(200)) - set(missing))
    assert present[:3] == [0, 1, 2]
    assert np.array_equal(text[present], rows([names[position] for position in present]))
    assert np.array_equal(cached_embeddings(names, cache, Encoder()), rows(names))
    assert cache.load(names)[1] == []


@pytest.mark.parametrize("code", [sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_WRITE])
def test_a_full_disk_is_logged(
    code: int, cache: TextCache, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    cache.store(["a"], rows(["a"]))

    def full(*_arguments: object) -> None:
        error = sqlite3.OperationalError("database or disk is full")
        error.sqlite_errorcode = code
        raise error

    monkeypatch.setattr(TextCache, "_insert", full)
    cache.store(["b"], rows(["b"]))
    assert "not cached: database or disk is full" in caplog.text
    # What was there is not taken for damaged.
    assert cache.load(["a"])[1] == []


def test_a_cache_folder_that_cannot_be_is_no_error(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("SED_TRT_CACHE", "x" * 5000)
    cache = TextCache.of_bundle(manifest())
    assert cache.load(["a"])[1] == [0]
    cache.store(["a"], rows(["a"]))
    assert "not cached" in caplog.text
