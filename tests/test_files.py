"""Files written whole or not at all."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from sed_trt.errors import InputError
from sed_trt.files import check_writable, make_folder, replacing


@pytest.fixture
def umask() -> Iterator[int]:
    """A umask other than the usual one, for the time of a test."""
    before = os.umask(0o027)
    yield 0o027
    os.umask(before)


def test_mode_follows_the_umask_whatever_the_writer_does(tmp_path: Path, umask: int) -> None:
    with replacing(tmp_path / "a.txt") as temporary:
        temporary.unlink()
        temporary.touch(0o600)
    assert (tmp_path / "a.txt").stat().st_mode & 0o777 == 0o666 & ~umask


def test_failure_leaves_what_was_there(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("before")
    with pytest.raises(ZeroDivisionError), replacing(tmp_path / "a.txt") as temporary:
        temporary.write_text("half")
        raise ZeroDivisionError
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
    assert (tmp_path / "a.txt").read_text() == "before"


@pytest.mark.parametrize("folder", ["absent", "file", "x" * 300])
def test_folder_that_takes_no_files(folder: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be written"):
        check_writable(tmp_path / folder)
    with pytest.raises(InputError, match="cannot be written"), replacing(tmp_path / folder / "a.txt"):
        pytest.fail("nothing can be written here")


def test_folder_is_made_or_refused(tmp_path: Path) -> None:
    for _ in range(2):
        make_folder(tmp_path / "deep" / "folder")
    assert list((tmp_path / "deep").iterdir()) == [tmp_path / "deep" / "folder"]
    (tmp_path / "file").touch()
    for taken in ("file", "file/below"):
        with pytest.raises(InputError, match=f"{taken}: cannot be made"):
            make_folder(tmp_path / taken)


def test_check_leaves_nothing(tmp_path: Path) -> None:
    check_writable(tmp_path)
    assert list(tmp_path.iterdir()) == []
