"""Counts kept on disk: what they belong to, and that they are whole or refused."""

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sed_trt.benchmarks.accuracy.count_pictures import count_sets, identifying
from sed_trt.benchmarks.accuracy.counts import Confusion, Labelled, PictureCounts, SetCounts
from sed_trt.benchmarks.accuracy.picture_counter import Setup
from sed_trt.benchmarks.accuracy.saved_counts import SavedCounts, SavedSet, digest, stamps_of
from sed_trt.errors import InputError
from sed_trt.runtime import parse_rejection
from sed_trt.tests.fakes.given_set import GivenSet, source_of
from sed_trt.train.datasets import Dataset, open_dataset

POLICIES = ("topk:8", "none")
SHAPE = (2, 5)


def pictures() -> GivenSet:
    """Three pictures, four categories."""
    return GivenSet([np.zeros(SHAPE, np.int32)] * 3, 4)


def key(folder: Path, **changed: Any) -> str:
    """The key of an evaluation of which some parts are changed."""
    given = {"weights": b"weights", "runs_on": "nothing", "policies": POLICIES, "short_side": None} | changed
    file = folder / "sed.pth"
    file.write_bytes(given["weights"])
    policies = {text: parse_rejection(text) for text in given["policies"]}
    setup = Setup((file,), policies, short_side=given["short_side"])
    source = replace(source_of(lambda image: image[..., 0]), runs_on=given["runs_on"])
    dataset = pictures()
    for name in ("names", "classes", "scored_as", "max_short_side"):
        setattr(dataset, name, changed.get(name, getattr(dataset, name)))
    return digest(identifying(setup, [source]), dataset, changed.get("chosen", [0, 1]))


@pytest.mark.parametrize(
    "changed",
    [
        {"weights": b"others"},
        {"runs_on": "PyTorch"},
        {"policies": ("topk:7", "none")},
        {"short_side": 640},
        {"names": ("sky", "road", "car", "tree")},
        {"classes": ("sky", "road", "car", "tree")},
        {"scored_as": np.array([0, 1, 1, 3], np.int32)},
        {"max_short_side": 512},
        {"chosen": [0]},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_an_evaluation_is_known_by_what_changes_its_counts(changed: dict[str, Any], tmp_path: Path) -> None:
    assert key(tmp_path) == key(tmp_path)
    assert key(tmp_path) != key(tmp_path, **changed)


def test_own_data_is_known_by_where_it_lies(
    own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = []
    for folder in ("a", "b"):
        shutil.copytree(own, tmp_path / folder / "own")
        monkeypatch.chdir(tmp_path / folder)
        keys.append(digest({}, open_dataset("own"), [0]))
    assert keys[0] != keys[1]


def some_counts(done: int = 1) -> SetCounts:
    """Counts of three pictures, so many of them done."""
    counts = SetCounts(3, 4, policies=1, sources=1)
    for position in range(done):
        labelled = Labelled(np.array([1, 6]), np.array([7, 3]), (4, 3, 2))
        counts.add(PictureCounts(position, ((labelled,),), (10,), 10))
    return counts


def saved_set(folder: Path, dataset: Dataset) -> SavedSet:
    """The file of the first three pictures of a set."""
    return SavedSet(folder / "kept.npz", (dataset, range(3)), stamps_of(dataset, range(3)))


def same(one: SetCounts, two: SetCounts) -> bool:
    """Whether two have counted the same."""
    arrays, others = one.arrays(), two.arrays()
    return all(np.array_equal(arrays[name], others[name]) for name in arrays)


@pytest.mark.parametrize("kind", ["images", "labels"])
def test_a_picture_that_changed_after_it_was_counted_is_named(kind: str, own: Path, tmp_path: Path) -> None:
    data = tmp_path / "own"
    shutil.copytree(own, data)
    saved_set(tmp_path, open_dataset(str(data))).save(some_counts(done=1))
    # The second one is not counted yet, and may be replaced.
    for name in ("1.png", "0.png"):
        counts = some_counts(done=0)
        saved_set(tmp_path, open_dataset(str(data))).load(counts)
        assert same(counts, some_counts(done=1))
        os.utime(data / kind / name, ns=(0, 0))
    with pytest.raises(InputError, match=r"images/0\.png as it was before"):
        saved_set(tmp_path, open_dataset(str(data))).load(some_counts(done=0))


def test_files_that_are_not_there_have_no_stamps(own: Path) -> None:
    dataset = open_dataset(str(own))
    assert (stamps_of(dataset, [0, 1]) > 0).all()
    assert not stamps_of(pictures(), [0]).any()


def array_file(whole: bytes) -> bytes:
    """A file of numpy's other format."""
    file = BytesIO()
    np.save(file, np.zeros(3))
    return file.getvalue()


@pytest.mark.parametrize(
    "damage",
    [lambda whole: whole[: len(whole) // 2], lambda whole: b"", lambda whole: b"of another", array_file],
    ids=["cut", "empty", "other", "array"],
)
def test_a_damaged_file_is_refused(damage: Callable[[bytes], bytes], tmp_path: Path) -> None:
    file = saved_set(tmp_path, pictures())
    file.save(some_counts())
    file.path.write_bytes(damage(file.path.read_bytes()))
    with pytest.raises(InputError, match="cannot be read as the progress of an evaluation"):
        file.load(some_counts(done=0))


def test_any_flipped_byte_is_refused_or_no_matter(tmp_path: Path) -> None:
    file = saved_set(tmp_path, pictures())
    file.save(some_counts())
    whole = file.path.read_bytes()
    refused = 0
    for position in range(len(whole)):
        file.path.write_bytes(whole[:position] + bytes([whole[position] ^ 0xFF]) + whole[position + 1 :])
        counts = some_counts(done=0)
        try:
            file.load(counts)
        except InputError:
            refused += 1
        else:
            assert same(counts, some_counts()), position
    assert refused > len(whole) / 2


def counted(folder: Path, label: Callable[[np.ndarray], np.ndarray], save_every: int = 1) -> SetCounts:
    """Three pictures counted under two policies, going on from what is kept in `folder`."""
    checkpoint = folder.with_suffix(".pth")
    checkpoint.touch()
    saved = SavedCounts(folder, pytest.fail)
    policies = {text: parse_rejection(text) for text in POLICIES}
    setup = Setup((checkpoint,), policies, saved=saved, save_every=save_every)
    dataset = pictures()
    sets = [(dataset, range(3))]
    (counts,) = count_sets(setup, [source_of(label)], sets, lambda what, done, total: None)
    saved.remove()
    return counts


def values(image: np.ndarray) -> np.ndarray:
    """Labels that differ from picture to picture."""
    return image[..., 0]


@pytest.mark.parametrize("save_every", [1, 2, 25])
@pytest.mark.parametrize("call", [2, 3])
def test_an_interrupt_within_a_picture_keeps_no_half_of_it(
    call: int, save_every: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls, add_pairs = count(), Confusion.add_pairs

    def interrupted(confusion: Confusion, pairs: np.ndarray, counts: np.ndarray) -> None:
        add_pairs(confusion, pairs, counts)
        # The second picture, whose totals are those of two policies.
        if next(calls) == call:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Confusion, "add_pairs", interrupted)
        with pytest.raises(KeyboardInterrupt):
            counted(tmp_path / "kept", values, save_every)
    assert (tmp_path / "kept").exists() == (save_every == 1)
    assert same(counted(tmp_path / "kept", values), counted(tmp_path / "whole", values))
    assert not (tmp_path / "kept").exists()


def test_what_went_wrong_first_is_said(tmp_path: Path) -> None:
    folder = tmp_path / "kept"

    def refuse(image: np.ndarray) -> np.ndarray:
        if image[0, 0, 0] == 1:
            # The first picture can no longer be kept.
            shutil.rmtree(folder)
            raise InputError("GPU: out of memory")
        return values(image)

    with pytest.raises(InputError, match=r"^picture 1: GPU: out of memory$"):
        counted(folder, refuse, save_every=25)


def test_a_folder_that_cannot_be_made_is_found_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "kept").touch()

    def work(image: np.ndarray) -> np.ndarray:
        pytest.fail("the work began")

    with pytest.raises(InputError, match="kept: cannot be made"):
        counted(tmp_path / "kept", work)


def test_a_folder_in_which_nothing_is_kept_is_removed(tmp_path: Path) -> None:
    def refuse(image: np.ndarray) -> np.ndarray:
        raise InputError("GPU: out of memory")

    with pytest.raises(InputError):
        counted(tmp_path / "kept", refuse)
    assert not (tmp_path / "kept").exists()


def test_other_evaluations_are_named_and_left(tmp_path: Path) -> None:
    folder = tmp_path / "kept"
    folder.mkdir()
    (folder / "0123.npz").touch()
    # A killed process was writing this one, and reading from that folder.
    (folder / ".4567.npz").touch()
    (folder / "sed-trt-x").mkdir()
    (folder / "sed-trt-x" / "text-0.npy").touch()
    notes: list[str] = []
    saved = SavedCounts(folder, notes.append)
    with saved.begun({}, [(pictures(), range(3))]) as (file,):
        file.save(some_counts())
    assert notes == [f"{folder / '0123.npz'}: belongs to another evaluation and is not used"]
    saved.remove()
    assert [path.name for path in folder.iterdir()] == ["0123.npz"]
