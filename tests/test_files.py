"""Files written whole or not at all."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from sed_trt.errors import InputError
from sed_trt.files import (
    check_writable,
    exists,
    is_file,
    is_folder,
    make_folder,
    read_file,
    replacing,
    resolved,
)


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


@pytest.mark.parametrize("folder", ["absent", "file", "x" * 300, "null\0byte"])
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
    with pytest.raises(InputError, match=r"cannot be written \(its name holds a null byte\)"):
        make_folder(tmp_path / "null\0byte")


def test_check_leaves_nothing(tmp_path: Path) -> None:
    check_writable(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_path_with_a_null_byte_leads_nowhere(tmp_path: Path) -> None:
    path = tmp_path / "null\0byte"
    assert not exists(path)
    assert not is_file(path)
    assert not is_folder(path)
    assert resolved(path) == path
    with pytest.raises(FileNotFoundError):
        read_file(path)


def test_only_regular_files_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"content")
    assert read_file(tmp_path / "a.txt") == b"content"
    os.mkfifo(tmp_path / "fifo")
    for name in ("fifo", "."):
        with pytest.raises(OSError, match="is no regular file"):
            read_file(tmp_path / name)
