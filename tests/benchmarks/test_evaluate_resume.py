"""Evaluations that are interrupted, shared between processes or split into shards, as a user meets them."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from sed_trt.benchmarks.accuracy.counts import ImageCounts
from sed_trt.cli.main import main
from sed_trt.tests.fakes.own_data import evaluated, failed

# Comes to the image WAIT_FROM and stays there.
PROGRAM = """
import os, signal, sys, threading
from sed_trt.cli.main import main
from sed_trt.train.datasets.files import FileDataset
read = FileDataset.__getitem__
def read_or_wait(self, index):
    if index >= int(os.environ["WAIT_FROM"]):
        threading.Event().wait()
    return read(self, index)
FileDataset.__getitem__ = read_or_wait
# A process in the background may have been started so that it ignores Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.exit(main())
"""


@pytest.fixture
def data(own: Path, tmp_path: Path) -> Path:
    """Own data that a test may change."""
    return Path(shutil.copytree(own, tmp_path / "data"))


def assert_close(content: dict[str, Any], expected: dict[str, Any]) -> None:
    """The same images were counted; of their labels a few pixels may differ, as threads do."""
    for row, known in zip(content["results"], expected["results"], strict=True):
        assert (row["images"], row["rejection"]) == (known["images"], known["rejection"])
        assert row["kept"] == pytest.approx(known["kept"], abs=0.2)
        for figure in ("miou", "fwiou", "pixel_accuracy", "class_accuracy"):
            assert row[figure] == pytest.approx(known[figure], abs=0.1), figure
        pixels = [[each["pixels"] for each in scores["per_category"]] for scores in (row, known)]
        assert pixels[0] == pixels[1]


def positions(file: Path) -> list[int]:
    """Of the images whose records are in a file."""
    lines = file.read_bytes().splitlines()
    return [msgspec.json.decode(line.partition(b" ")[2], type=ImageCounts).position for line in lines]


def test_processes_and_shards_count_the_same(
    own: Path, tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = (tiny_bundle, "--data", own, "-r", "topk:8", "-r", "topk:1")
    alone = evaluated(tmp_path / "one.json", *arguments)
    shared = evaluated(tmp_path / "two.json", *arguments, "--processes", 2)
    assert_close(shared, alone)
    assert sorted(path.name for path in tmp_path.glob("*.json*")) == ["one.json", "two.json"]
    capsys.readouterr()
    output = tmp_path / "shards.json"
    for shard, done in ((2, 3), (3, 6)):
        command = ["evaluate", *map(str, arguments), "--output", str(output), "--shard", f"{shard}/3"]
        assert main(command) == 0
        printed = capsys.readouterr().out
        assert (
            f"own, {alone['results'][0]['categories']} categories: {done} of 10 images are counted" in printed
        )
        assert not output.exists()
    files = list((tmp_path / "shards.json.partial").iterdir())
    assert sorted(positions(file) for file in files) == [[1, 4, 7], [2, 5, 8]]
    assert evaluated(output, *arguments) == alone
    assert not (tmp_path / "shards.json.partial").exists()


@pytest.mark.parametrize("shard", ["0/2", "3/2", "2", "a/b", "1/2/3", "-1/2"])
def test_shards_that_make_no_sense(shard: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    message = failed(capsys, "none.pth", "--output", tmp_path / "r.json", f"--shard={shard}")
    assert f"--shard: {shard!r} is no share, expected I/N" in message


@pytest.mark.parametrize(
    "options",
    [
        ["--json"],
        ["-o", "r.json", "--layerwise", "fp16"],
        ["-o", "r.json", "--against", "x", "--max-drop", "1"],
    ],
)
def test_a_shard_only_counts(options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert "--shard: only counts" in failed(capsys, "none.pth", "--shard", "1/2", *options)


@pytest.mark.parametrize("processes", [1, 2])
def test_a_killed_evaluation_resumes(
    processes: int, data: Path, tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [str(tiny_bundle), "--data", str(data)]
    whole = evaluated(tmp_path / "whole.json", *arguments)
    output, partial = tmp_path / "killed.json", tmp_path / "killed.json.partial"
    command = [sys.executable, "-c", PROGRAM, "evaluate", *arguments, "--output", str(output)]
    with subprocess.Popen(command, env=os.environ | {"WAIT_FROM": "4"}) as process:
        while not [file for file in partial.glob("*.jsonl") if file.read_bytes().count(b"\n") == 4]:
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    assert not output.exists()
    # Images that are counted are not labelled again, so they need not even be readable.
    for index in range(4):
        image = data / "images" / f"{index}.png"
        status = image.stat()
        image.write_bytes(bytes(status.st_size))
        os.utime(image, ns=(status.st_atime_ns, status.st_mtime_ns))
    # Another evaluation does not use the counts.
    other = (tiny_bundle, "--data", data, "--limit", 1, "-r", "topk:2", "--output", output)
    assert "0.png" in failed(capsys, *other)
    content = evaluated(output, *arguments, "--processes", processes)
    assert_close(content, whole)
    assert content == whole or processes > 1
    assert not partial.exists()


def test_ctrl_c_is_reported_in_one_line(data: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    output = tmp_path / "r.json"
    command = [
        sys.executable, "-c", PROGRAM, "evaluate", str(tiny_bundle), "--data", str(data), "-o", str(output)
    ]  # fmt: skip
    # Nothing is counted yet, and the folder is removed.
    with subprocess.Popen(
        command, env=os.environ | {"WAIT_FROM": "0"}, stderr=subprocess.PIPE, text=True
    ) as process:
        while not (tmp_path / "r.json.partial").exists():
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate()
    assert process.returncode == 130
    assert stderr.splitlines() == ["sed-trt: error: interrupted"]
    assert not list(tmp_path.glob("r.json*"))


def test_progress_of_another_evaluation_is_left_alone(
    own: Path, tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    partial = tmp_path / "r.json.partial"
    partial.mkdir()
    foreign = partial / "0123456789abcdef-01.jsonl"
    foreign.write_bytes(b"of another evaluation")
    evaluated(tmp_path / "r.json", tiny_bundle, "--data", own, "--limit", 1, "-r", "topk:1")
    assert f"{foreign}: belongs to another evaluation and is not used" in capsys.readouterr().err
    assert list(partial.iterdir()) == [foreign]


def test_damaged_progress_is_refused(
    data: Path, tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = (tiny_bundle, "--data", data, "-r", "topk:1", "--limit", 3, "-o", tmp_path / "r.json")
    broken = data / "images" / "6.png"
    whole = broken.read_bytes()
    broken.write_bytes(whole[:200])
    message = failed(capsys, *arguments)
    assert str(broken) in message
    # What was done before the broken image is kept.
    (kept,) = (tmp_path / "r.json.partial").iterdir()
    assert positions(kept) == [0, 1]
    sound = kept.read_bytes()
    kept.write_bytes(sound.replace(b"position", b"positiom", 1))
    message = failed(capsys, *arguments)
    assert f"{kept}: cannot be read as the progress of an evaluation (line 1" in message
    kept.write_bytes(sound)
    # The broken one may be replaced, but none of those that are counted may change.
    broken.write_bytes(whole)
    os.utime(data / "labels" / "3.png", ns=(0, 0))
    assert "3.png as it was before" in failed(capsys, *arguments)
    kept.unlink()
    assert main(["evaluate", *map(str, arguments)]) == 0


def test_a_broken_image_in_a_process_is_named(
    data: Path, tiny_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (data / "labels" / "3.png").write_bytes(b"no image")
    arguments = (tiny_bundle, "--data", data, "-r", "topk:1", "--processes", 2)
    assert str(data / "labels" / "3.png") in failed(capsys, *arguments)
