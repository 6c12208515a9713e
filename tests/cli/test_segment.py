"""`sed-trt segment` from files to files."""

import errno
import json
import os
import re
import tempfile
import threading
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest
from PIL import Image

from sed_trt.bundle import Bundle
from sed_trt.cli.main import main
from sed_trt.cli.segment import distinct_stems, expand_inputs
from sed_trt.engines.backends import open_engines
from sed_trt.errors import InputError
from sed_trt.tests.fakes.bundle import write_fake_bundle
from sed_trt.tests.fakes.engines import FakeEngines

CATEGORIES = ["--categories", "sky, road, red car"]


def forbidden(*_arguments: object, **_options: object) -> NoReturn:
    """What the operating system says to whoever may not; root, who may, runs the tests in containers."""
    raise PermissionError(errno.EACCES, "Permission denied")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder with two images and a text file."""
    folder = tmp_path / "photos"
    folder.mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    Image.fromarray(noise).save(folder / "a.png")
    Image.fromarray(noise[:30]).save(folder / "b.jpg")
    (folder / "notes.txt").write_text("none")
    return folder


@pytest.fixture
def bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A bundle whose stages are in numpy; the options that choose engines are checked as for any other."""

    def open_fakes(
        bundle: Bundle, backend: str | None, threads: int | None, images_at_once: int, cuda_graphs: bool
    ) -> FakeEngines:
        open_engines(bundle, backend, threads, images_at_once, cuda_graphs)
        return FakeEngines(images_at_once=images_at_once)

    monkeypatch.setattr("sed_trt.runtime.segmenter.open_engines", open_fakes)
    return write_fake_bundle(tmp_path / "fake")


def segment(bundle: Path, *arguments: str | Path) -> int:
    return main(["segment", str(bundle), *map(str, arguments), "--short-side", "64"])


def test_folder_to_files(
    tiny_bundle: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "deep" / "out"
    assert segment(tiny_bundle, photos, *CATEGORIES, "-o", output) == 0
    assert sorted(path.name for path in output.iterdir()) == [
        "a.json", "a.labels.png", "a.overlay.png", "b.json", "b.labels.png", "b.overlay.png"
    ]  # fmt: skip
    with Image.open(output / "b.labels.png") as labels:
        assert (labels.mode, labels.size) == ("P", (60, 30))
        counts = np.bincount(np.asarray(labels).ravel(), minlength=3)
    content = json.loads((output / "b.json").read_text())
    assert {entry["index"]: entry["pixels"] for entry in content["categories"]} == {
        index: count for index, count in enumerate(counts.tolist()) if count
    }
    assert content["image"] == str(photos / "b.jpg")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert lines[0].startswith(f"{photos / 'a.png'}: ")
    assert "kept 3 > 3 > 3" in lines[0]
    assert str(output) in lines[2]
    assert re.search(r"segmented on \w+ \(the fastest that works here.*; tensorrt", lines[2])


def test_json_summary_is_all_of_stdout(
    tiny_bundle: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = [
        "--json",
        "--no-overlay",
        "--rejection",
        "budget:2",
        "--threads",
        "1",
        "--backend",
        "onnxruntime",
    ]
    assert segment(tiny_bundle, photos / "a.png", *CATEGORIES, *options, "-o", tmp_path / "out") == 0
    content = json.loads(capsys.readouterr().out)
    assert (content["backend"], content["backend_reason"]) == ("onnxruntime", "asked for")
    assert content["errors"] == []
    assert content["images"][0]["kept"] == [2, 2, 2]
    assert content["images"][0]["overlay"] is None
    assert not (tmp_path / "out" / "a.overlay.png").exists()


@pytest.mark.parametrize("flag", [[], ["--device-rejection"]])
def test_rejection_on_the_device_is_a_choice(
    flag: list[str], bundle: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engines = FakeEngines((4, 8))
    monkeypatch.setattr("sed_trt.runtime.segmenter.open_engines", lambda *_arguments: engines)
    arguments = ["--categories", "red, green, blue", "--rejection", "budget:2", *flag]
    assert segment(bundle, photos, *arguments, "-o", tmp_path / "out") == 0
    assert len(engines["select"].shapes) == (6 if flag else 0)


def test_bad_file_is_reported_and_the_others_are_written(
    bundle: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (photos / "aa.png").write_bytes(b"")
    assert segment(bundle, photos, tmp_path / "absent.png", *CATEGORIES, "-o", tmp_path / "out") == 2
    captured = capsys.readouterr()
    errors = captured.err.splitlines()
    assert errors[0].startswith(f"sed-trt: error: {photos / 'aa.png'}: is empty")
    assert errors[1].startswith(f"sed-trt: error: {tmp_path / 'absent.png'}: no such file")
    assert "2 of 4 images" in captured.out
    assert (tmp_path / "out" / "b.labels.png").exists()
    assert not list((tmp_path / "out").glob("aa*"))


def test_more_than_256_categories_give_16_bit_labels(bundle: Path, photos: Path, tmp_path: Path) -> None:
    names = tmp_path / "names.txt"
    names.write_text("\n".join(f"thing {number}" for number in range(300)), encoding="utf-8")
    options = ["--rejection", "budget:4", "-o", str(tmp_path / "out")]
    assert segment(bundle, photos / "a.png", "--vocabulary", names, *options) == 0
    with Image.open(tmp_path / "out" / "a.labels.png") as labels:
        assert labels.mode.startswith("I;16")


def test_published_vocabulary(bundle: Path, photos: Path, tmp_path: Path) -> None:
    options = ["--rejection", "budget:4", "-o", str(tmp_path / "out")]
    assert segment(bundle, photos / "a.png", "--vocabulary", "voc20", *options) == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "give one of --categories"),
        ([*CATEGORIES, "--vocabulary", "voc20"], "give one of --categories"),
        (["--vocabulary", "voc"], "ade150, ade847"),
        (["--categories", ""], "holds no category names"),
        (["--categories", "sky,,road"], "category 2 is blank"),
        (["--categories", "sky;;road"], "category 2 is blank"),
        (["--categories", "tree,, trees; road"], "blank synonym"),
        (["--categories", "sky,sky"], "duplicate"),
        ([*CATEGORIES, "--rejection", "topk:9"], "expected a whole number from 1 to 8"),
        ([*CATEGORIES, "--rejection", "best"], "topk:K"),
        (
            [*CATEGORIES, "--backend", "trt"],
            "choose one of auto, tensorrt, tensorrt-rtx, onnxruntime-cuda, openvino, onnxruntime",
        ),
        ([*CATEGORIES, "--threads", "0"], "threads: 0"),
        ([*CATEGORIES, "--batch", "0"], "batch: 0"),
        ([*CATEGORIES, "--short-side", "9999"], "short_side: 9999"),
    ],
)
def test_bad_options(
    options: list[str],
    message: str,
    bundle: Path,
    photos: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    output = tmp_path / "out"
    assert main(["segment", str(bundle), str(photos), *options, "-o", str(output)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("sed-trt: error: ")
    assert message in error
    assert error.count("\n") == 1
    assert not output.exists() or not list(output.iterdir())


def test_output_that_cannot_be_written(
    bundle: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    assert segment(bundle, photos, *CATEGORIES, "-o", tmp_path / "file") == 2
    assert "file: cannot be made a folder (it is a file)" in capsys.readouterr().err
    assert segment(bundle, photos, *CATEGORIES, "-o", tmp_path / "file" / "out") == 2
    assert "cannot be made a folder" in capsys.readouterr().err


def test_output_without_permission(
    bundle: Path,
    photos: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tempfile, "TemporaryFile", forbidden)
    assert segment(bundle, photos, *CATEGORIES, "-o", tmp_path / "closed") == 2
    assert "closed: cannot be written (Permission denied)" in capsys.readouterr().err


def test_files_of_any_name_in_the_output_are_left(bundle: Path, photos: Path, tmp_path: Path) -> None:
    (tmp_path / "probe").write_text("mine")
    assert segment(bundle, photos / "a.png", *CATEGORIES, "-o", tmp_path) == 0
    assert (tmp_path / "probe").read_text() == "mine"


def test_paths_that_are_too_long(
    bundle: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    long = "sky, tree, " * 30
    commands: list[list[str | Path]] = [
        [photos, "--vocabulary", long],
        [photos, *CATEGORIES, "-o", tmp_path / long],
        [photos / long, *CATEGORIES, "-o", tmp_path / "out"],
        [photos / f"{long}*", *CATEGORIES, "-o", tmp_path / "out"],
    ]
    for arguments in commands:
        assert segment(bundle, *arguments) == 2
        assert capsys.readouterr().err.startswith("sed-trt: error: ")
    assert main(["segment", long, str(photos), *CATEGORIES]) == 2
    assert "no such bundle folder" in capsys.readouterr().err


def test_loop_of_links_is_a_bad_file_among_good_ones(
    bundle: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (photos / "loop.png").symlink_to("loop.png")
    assert segment(bundle, photos, *CATEGORIES, "-o", tmp_path / "out") == 2
    captured = capsys.readouterr()
    assert "loop.png: no such file, or it cannot be reached" in captured.err
    assert "2 of 3 images" in captured.out


def test_names_and_pipes_that_are_no_files_are_bad_inputs_among_good_ones(
    bundle: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Real pipes, which no process writes to: to open one would wait for ever."""
    os.mkfifo(photos / "aa.png")
    os.mkfifo(tmp_path / "pipe")
    inputs: list[str | Path] = [photos, "a\0b.png", "a\0b/*.png", tmp_path / "pipe", "/dev/zero"]
    assert segment(bundle, *inputs, *CATEGORIES, "-o", tmp_path / "out") == 2
    captured = capsys.readouterr()
    assert [line.split(";")[0] for line in captured.err.splitlines()] == [
        f"sed-trt: error: {photos / 'aa.png'}: is a pipe, socket or device, expected an image file",
        r"sed-trt: error: 'a\x00b.png': no such file, a file name holds no null byte",
        r"sed-trt: error: 'a\x00b/*.png': no such file, a file name holds no null byte",
        f"sed-trt: error: {tmp_path / 'pipe'}: is a pipe, socket or device, expected an image file",
        "sed-trt: error: /dev/zero: is a pipe, socket or device, expected an image file",
    ]
    assert "2 of 7 images" in captured.out


@pytest.mark.parametrize(
    ("option", "name", "message"),
    [
        ("--vocabulary", "a\0b", "is neither a file nor a published vocabulary"),
        ("--vocabulary", "pipe", "is neither a file nor a published vocabulary"),
        ("--output", "a\0b", "'--output': Value error, embedded null byte"),
        ("--output", "pipe", "pipe: cannot be made a folder"),
    ],
)
def test_names_and_pipes_that_are_no_files_as_options(
    option: str,
    name: str,
    message: str,
    bundle: Path,
    photos: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    os.mkfifo(tmp_path / "pipe")
    names = [] if option == "--vocabulary" else CATEGORIES
    assert segment(bundle, photos, *names, option, tmp_path / name) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("name", "message"),
    [("a\0b", "'bundle': Value error, embedded null byte"), ("pipe", "expected a bundle folder")],
)
def test_names_and_pipes_that_are_no_bundle(
    name: str, message: str, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert segment(tmp_path / name, photos, *CATEGORIES) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_synonyms_on_the_command_line_and_in_a_file(bundle: Path, photos: Path, tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("red, scarlet\nblue\n")
    for number, options in enumerate(
        [("--categories", "red, scarlet; blue"), ("--vocabulary", str(tmp_path / "names.txt"))]
    ):
        output = tmp_path / f"{number}"
        assert segment(bundle, photos / "a.png", *options, "-o", output, "--rejection", "none") == 0
        content = json.loads((output / "a.json").read_text())
        assert {entry["name"] for entry in content["categories"]} <= {"red, scarlet", "blue"}
        assert content["kept"] == [2, 2, 2]


def test_help_says_how_names_are_read(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["segment", "--help"]) == 0
    text = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert '"sky; tree, trees; car"' in text
    assert '["sky", "tree, trees"]' in text


def test_inputs_are_files_folders_and_globs(photos: Path) -> None:
    assert expand_inputs([str(photos)]) == [photos / "a.png", photos / "b.jpg"]
    assert expand_inputs([str(photos / "*.png"), str(photos), "absent.png"]) == [
        photos / "a.png",
        photos / "b.jpg",
        Path("absent.png"),
    ]
    (photos / "inner").mkdir()
    (photos / "b.jpg").rename(photos / "inner" / "[1].jpg")
    assert expand_inputs([str(photos / "**" / "*.jpg")]) == [photos / "inner" / "[1].jpg"]
    assert expand_inputs([str(photos / "inner" / "[1].jpg")]) == [photos / "inner" / "[1].jpg"]


def test_inputs_without_images(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="folder without images"):
        expand_inputs([str(tmp_path / "empty")])
    with pytest.raises(InputError, match="matches no file"):
        expand_inputs([str(photos / "*.webp")])


def test_folder_that_cannot_be_listed(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "iterdir", forbidden)
    with pytest.raises(InputError, match=r"photos: cannot be listed \(Permission denied\)"):
        expand_inputs([str(photos)])


def test_equal_stems_do_not_overwrite_each_other() -> None:
    paths = [Path("x/a.png"), Path("y/a.png"), Path("y/a-2.png"), Path("y/A.jpg"), Path("y/b.png")]
    assert distinct_stems(paths) == ["a", "a-2", "a-2-2", "A-3", "b"]


def test_a_disk_that_fills_up_ends_the_work(
    bundle: Path,
    photos: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = set(threading.enumerate())

    def full(*_arguments: object) -> NoReturn:
        raise InputError("a.labels.png: cannot be written (No space left on device); choose a folder")

    monkeypatch.setattr("sed_trt.runtime.result.write_labels", full)
    assert segment(bundle, photos, *CATEGORIES, "-o", tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert "No space left on device" in error
    assert error.count("\n") == 1
    assert set(threading.enumerate()) <= before


def test_no_scores_are_copied_from_a_gpu(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engines = FakeEngines(label_stage="label_gpu")
    monkeypatch.setattr("sed_trt.runtime.segmenter.open_engines", lambda *_arguments: engines)
    bundle = write_fake_bundle(tmp_path / "fake")
    assert segment(bundle, photos, "--categories", "red, green", "-o", tmp_path / "out") == 0
    assert sorted(engines.downloaded) == [30 * 60 * 2, 40 * 60 * 2]
