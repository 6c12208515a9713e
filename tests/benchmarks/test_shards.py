"""The records of an evaluation: which evaluation they belong to, and that they are whole or refused."""

import os
import shutil
from contextlib import ExitStack
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sed_trt.benchmarks.accuracy.counts import ImageCounts, PredictionCounts, SetCounts
from sed_trt.benchmarks.accuracy.labelling import count_sets
from sed_trt.benchmarks.accuracy.shards import (
    ChosenImages,
    ProgressFolder,
    SetProgress,
    append_record,
    evaluation_key,
)
from sed_trt.errors import InputError
from sed_trt.tests.fakes.given_set import GivenSet, Label, no_report, same, source_of, stand_in_setup, values
from sed_trt.train.datasets import Dataset, open_dataset

POLICIES = ("topk:8", "none")


def three_images() -> GivenSet:
    """Three images, four categories."""
    return GivenSet([np.zeros((2, 5), np.int32)] * 3, 4)


def key(folder: Path, **changed: Any) -> str:
    """The key of an evaluation of which some parts are changed."""
    settings = {"policies": POLICIES, "short_side": None} | {
        name: changed[name] for name in ("policies", "short_side") if name in changed
    }
    setup = stand_in_setup(folder, **settings)
    setup.paths[0].write_bytes(changed.get("weights", b"weights"))
    source = replace(source_of(values), runs_on=changed.get("runs_on", "nothing"))
    dataset = three_images()
    for name in ("names", "classes", "scored_as", "max_short_side"):
        setattr(dataset, name, changed.get(name, getattr(dataset, name)))
    return evaluation_key(setup.identity([source]), ChosenImages(dataset, changed.get("chosen", [0, 1])))


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


def test_own_data_is_known_by_its_path(own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = []
    for folder in ("a", "b"):
        shutil.copytree(own, tmp_path / folder / "own")
        monkeypatch.chdir(tmp_path / folder)
        keys.append(evaluation_key({}, ChosenImages(open_dataset("own"), [0])))
    assert keys[0] != keys[1]


def image_counts(position: int, stamps: list[int] | None = None) -> ImageCounts:
    """Counts of one image under one policy by one source."""
    counts = PredictionCounts([1, 6], [7 + position, 3], [4, 3, 2])
    return ImageCounts(position, stamps or [], 10 + position, [10], [[counts]])


def progress_of(folder: Path, dataset: Dataset) -> SetProgress:
    """The progress of the first three images of a set."""
    chosen = ChosenImages(dataset, range(3))
    return SetProgress(folder, "key", chosen, [chosen.stamps(position) for position in range(3)])


def loaded(progress: SetProgress) -> SetCounts:
    """The counts under one policy by one source."""
    return progress.load(policies=1, sources=1)


def summed(*positions: int) -> SetCounts:
    """The counts of some of the three images."""
    counts = SetCounts(3, 4, policies=1, sources=1)
    for position in positions:
        counts.add(image_counts(position))
    return counts


def test_files_are_merged_and_no_image_counts_twice(tmp_path: Path) -> None:
    progress = progress_of(tmp_path, three_images())
    files = [progress.new_file() for _ in range(3)]
    for file, position in zip(files, (0, 2, 0), strict=True):
        append_record(file, image_counts(position), sync=True)
    assert len(list(tmp_path.iterdir())) == 3
    assert same(loaded(progress), summed(0, 2))
    append_record(files[0], image_counts(1), sync=False)
    assert same(loaded(progress), summed(0, 1, 2))


@pytest.mark.parametrize("kind", ["images", "labels"])
def test_an_image_that_changed_after_it_was_counted_is_named(kind: str, own: Path, tmp_path: Path) -> None:
    data = tmp_path / "own"
    shutil.copytree(own, data)
    progress = progress_of(tmp_path, open_dataset(str(data)))
    append_record(progress.new_file(), image_counts(0, progress.stamps[0]), sync=False)
    # The second one is not counted yet, and may be replaced.
    for name in ("1.png", "0.png"):
        assert loaded(progress_of(tmp_path, open_dataset(str(data)))).done.tolist() == [True, False, False]
        os.utime(data / kind / name, ns=(0, 0))
    with pytest.raises(InputError, match=r"images/0\.png as it was before"):
        loaded(progress_of(tmp_path, open_dataset(str(data))))


def test_files_that_are_missing_have_no_stamps(own: Path, tmp_path: Path) -> None:
    data = tmp_path / "own"
    shutil.copytree(own, data)
    chosen = ChosenImages(open_dataset(str(data)), [0, 1])
    assert len(chosen.stamps(0)) == 4 and min(chosen.stamps(0)) > 0
    (data / "labels" / "0.png").unlink()
    assert chosen.stamps(0)[2:] == [0, 0] and min(chosen.stamps(0)[:2]) > 0
    assert ChosenImages(three_images(), [0]).stamps(0) == []


def three_records(folder: Path) -> tuple[SetProgress, Path, list[bytes]]:
    """A file of three records: the progress, the file and its lines."""
    progress = progress_of(folder, three_images())
    file = progress.new_file()
    for position in range(3):
        append_record(file, image_counts(position), sync=False)
    return progress, file, file.read_bytes().splitlines(keepends=True)


def test_a_file_cut_off_anywhere_has_its_whole_records(tmp_path: Path) -> None:
    progress, file, lines = three_records(tmp_path)
    whole = b"".join(lines)
    ends = np.cumsum([len(line) for line in lines])
    for length in range(len(whole) + 1):
        file.write_bytes(whole[:length])
        assert same(loaded(progress), summed(*range(int((ends <= length).sum())))), length


@pytest.mark.parametrize(
    "flip", [0xFF, 0x01, ord("A") ^ ord("a"), None], ids=["all", "bit", "case", "line break"]
)
def test_any_flipped_byte_is_noticed(flip: int | None, tmp_path: Path) -> None:
    progress, file, lines = three_records(tmp_path)
    whole = b"".join(lines)
    for position, byte in enumerate(whole):
        other = ord("\n") if flip is None else byte ^ flip
        file.write_bytes(whole[:position] + bytes([other]) + whole[position + 1 :])
        if other == byte:
            continue
        # Without the last line break the last record seems to be cut off, and its image is counted again.
        if position == len(whole) - 1:
            assert same(loaded(progress), summed(0, 1))
            continue
        with pytest.raises(InputError, match="cannot be read as the progress of an evaluation"):
            loaded(progress)


def array_file() -> bytes:
    """A file of numpy's format."""
    file = BytesIO()
    np.save(file, np.zeros(3))
    return file.getvalue()


@pytest.mark.parametrize(
    "content", [b"of another\n", array_file(), b"\n"], ids=["other", "array", "empty line"]
)
def test_other_content_is_refused(content: bytes, tmp_path: Path) -> None:
    progress = progress_of(tmp_path, three_images())
    progress.new_file().write_bytes(content)
    with pytest.raises(InputError, match="cannot be read as the progress of an evaluation"):
        loaded(progress)


def test_a_folder_instead_of_a_file_is_refused(tmp_path: Path) -> None:
    progress = progress_of(tmp_path, three_images())
    progress.new_file().mkdir()
    with pytest.raises(InputError, match="cannot be read as the progress of an evaluation"):
        loaded(progress)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a file that is always full")
@pytest.mark.parametrize("sync", [True, False])
def test_a_full_disk_is_bad_input(sync: bool) -> None:
    with pytest.raises(InputError, match=r"^/dev/full: cannot be written \(No space left"):
        append_record(Path("/dev/full"), image_counts(0), sync)


def counted(folder: Path, label: Label = values, save_every: int = 1) -> SetCounts:
    """Three images counted under two policies, resuming from what is kept in `folder`."""
    progress = ProgressFolder(folder, pytest.fail)
    setup = stand_in_setup(folder.parent, label, policies=POLICIES, progress=progress, save_every=save_every)
    (counts,) = count_sets(
        setup, setup.open(ExitStack()), [ChosenImages(three_images(), range(3))], no_report
    )
    progress.remove()
    return counts


@pytest.mark.parametrize("call", [1, 2, 3, 4])
@pytest.mark.parametrize("error", [KeyboardInterrupt, InputError])
def test_what_was_counted_before_an_interrupt_is_kept(
    call: int, error: type[BaseException], tmp_path: Path
) -> None:
    calls: list[int] = []

    def interrupted(image: np.ndarray) -> np.ndarray:
        calls.append(int(image[0, 0, 0]))
        if len(calls) == call:
            raise error("interrupted")
        return values(image)

    def watched(image: np.ndarray) -> np.ndarray:
        calls.append(int(image[0, 0, 0]))
        return values(image)

    whole = counted(tmp_path / "whole")
    with pytest.raises(error):
        counted(tmp_path / "kept", interrupted, save_every=2)
    assert (tmp_path / "kept").exists() == (call > 2)
    calls.clear()
    assert same(counted(tmp_path / "kept", watched), whole)
    # Each image is labelled once for each of the two policies; those of the first run are not labelled again.
    assert sorted(set(calls)) == list(range((call - 1) // 2, 3))
    assert not (tmp_path / "kept").exists()


def test_the_first_error_is_reported(tmp_path: Path) -> None:
    folder = tmp_path / "kept"

    def refuse(image: np.ndarray) -> np.ndarray:
        if image[0, 0, 0] == 1:
            # The first image can no longer be kept.
            shutil.rmtree(folder)
            raise InputError("GPU: out of memory")
        return values(image)

    with pytest.raises(InputError, match=r"^image 1: GPU: out of memory$"):
        counted(folder, refuse)


def test_counts_that_are_removed_meanwhile_are_missed(tmp_path: Path) -> None:
    folder = tmp_path / "kept"

    def removing(image: np.ndarray) -> np.ndarray:
        # Another run of the same evaluation comes to its end.
        if image[0, 0, 0] == 1:
            for file in folder.iterdir():
                file.unlink()
        return values(image)

    with pytest.raises(InputError, match=r"kept: files of this evaluation were removed while it ran"):
        counted(folder, removing)
    # What was counted afterwards is kept.
    assert same(counted(folder), counted(tmp_path / "whole"))


def test_a_folder_that_cannot_be_made_is_found_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "kept").touch()

    def work(image: np.ndarray) -> np.ndarray:
        pytest.fail("the work began")

    with pytest.raises(InputError, match="kept: cannot be made"):
        counted(tmp_path / "kept", work)


def test_other_evaluations_are_named_and_left(tmp_path: Path) -> None:
    folder = tmp_path / "kept"
    folder.mkdir()
    others = [folder / "0123-4567.jsonl", folder / "89ab.npz"]
    for other in others:
        other.touch()
    # A killed process has left it.
    (folder / "sed-trt-x").mkdir()
    (folder / "sed-trt-x" / "0.npy").touch()
    notes: list[str] = []
    progress = ProgressFolder(folder, notes.append)
    with progress.begin({}, [ChosenImages(three_images(), range(3))]) as (of_set,):
        append_record(of_set.new_file(), image_counts(0), sync=False)
    assert notes == [f"{other}: belongs to another evaluation and is not used" for other in others]
    assert len(list(folder.glob("*.jsonl"))) == 2
    progress.remove()
    assert sorted(folder.iterdir()) == others
