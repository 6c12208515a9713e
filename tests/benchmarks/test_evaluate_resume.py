"""Evaluations that are interrupted, or shared between processes."""

import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sed_trt.cli.main import main
from sed_trt.tests.fakes.own_data import PICTURES, evaluated, failed

# A process in the background may have been started so that it ignores Ctrl-C.
PROGRAM = """
import signal, sys
from sed_trt.cli.main import main
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.exit(main())
"""


def assert_alike(content: dict[str, Any], expected: dict[str, Any]) -> None:
    """The same pictures were counted; of their labels a few pixels may differ, as threads do."""
    for row, known in zip(content["results"], expected["results"], strict=True):
        assert (row["pictures"], row["rejection"]) == (known["pictures"], known["rejection"])
        assert row["kept"] == pytest.approx(known["kept"], abs=0.2)
        for figure in ("miou", "fwiou", "pixel_accuracy", "class_accuracy"):
            assert row[figure] == pytest.approx(known[figure], abs=0.1), figure
        pixels = [[each["pixels"] for each in scores["per_category"]] for scores in (row, known)]
        assert pixels[0] == pixels[1]


def test_processes_count_the_same(own: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    arguments = (tiny_bundle, "--data", own, "-r", "topk:8", "-r", "topk:1")
    alone = evaluated(tmp_path / "one.json", *arguments)
    shared = evaluated(tmp_path / "two.json", *arguments, "--processes", 2)
    assert_alike(shared, alone)
    assert sorted(path.name for path in tmp_path.glob("*.json*")) == ["one.json", "two.json"]


@pytest.mark.parametrize("processes", [1, 2])
def test_a_killed_evaluation_goes_on(
    processes: int, own: Path, tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data"
    shutil.copytree(own, data)
    arguments = [str(tiny_bundle), "--data", str(data), "--save-every", "1"]
    whole = evaluated(tmp_path / "whole.json", *arguments)
    output = tmp_path / "killed.json"
    partial = tmp_path / "killed.json.partial"
    command = [sys.executable, "-c", PROGRAM, "evaluate", *arguments, "--output", str(output)]
    with subprocess.Popen(command) as process:
        while not list(partial.glob("[!.]*.npz")):
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    assert not output.exists()
    (kept,) = partial.glob("[!.]*.npz")
    with np.load(kept) as arrays:
        done = np.flatnonzero(arrays["done"])
    assert 0 < len(done) < PICTURES
    # What is done is not labelled again, so it need not even be readable.
    for index in done:
        picture = data / "images" / f"{index}.png"
        found = picture.stat()
        picture.write_bytes(bytes(found.st_size))
        os.utime(picture, ns=(found.st_atime_ns, found.st_mtime_ns))
    # Another evaluation leaves it alone and says so.
    other = (tiny_bundle, "--data", data, "--limit", 1, "-r", "topk:2", "--output", output)
    assert "0.png" in failed(capsys, *other)
    content = evaluated(output, *arguments, "--processes", processes)
    assert_alike(content, whole)
    assert content == whole or processes > 1
    assert not partial.exists()


def test_progress_of_another_evaluation_is_left_alone(
    own: Path, tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    partial = tmp_path / "r.json.partial"
    partial.mkdir()
    foreign = partial / "0123456789abcdef.npz"
    foreign.write_bytes(b"of another evaluation")
    evaluated(tmp_path / "r.json", tiny_checkpoint, "--data", own, "--limit", 1, "-r", "topk:1")
    assert f"{foreign}: belongs to another evaluation and is not used" in capsys.readouterr().err
    assert list(partial.iterdir()) == [foreign]


def test_damaged_progress_is_refused(
    own: Path, tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data"
    shutil.copytree(own, data)
    arguments = (tiny_checkpoint, "--data", data, "-r", "topk:1", "--limit", 3, "-o", tmp_path / "r.json")
    broken = data / "images" / "6.png"
    whole = broken.read_bytes()
    broken.write_bytes(whole[:200])
    message = failed(capsys, *arguments)
    assert str(broken) in message
    # What was done before the broken picture is kept.
    (kept,) = (tmp_path / "r.json.partial").glob("*.npz")
    with np.load(kept) as arrays:
        assert arrays["done"].tolist() == [True, True, False]
    sound = kept.read_bytes()
    kept.write_bytes(sound[:100])
    assert "cannot be read as the progress of an evaluation" in failed(capsys, *arguments)
    kept.write_bytes(sound)
    # The broken one may be mended, but none of those that are counted may change.
    broken.write_bytes(whole)
    os.utime(data / "labels" / "3.png", ns=(0, 0))
    assert "3.png as it was before" in failed(capsys, *arguments)
    kept.unlink()
    assert main(["evaluate", *map(str, arguments)]) == 0


def test_a_broken_picture_in_a_process_is_named(
    own: Path, tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data"
    shutil.copytree(own, data)
    (data / "labels" / "3.png").write_bytes(b"no picture")
    arguments = (tiny_bundle, "--data", data, "-r", "topk:1", "--processes", 2)
    assert str(data / "labels" / "3.png") in failed(capsys, *arguments)


def running_in_group(group: int) -> list[str]:
    """Processes of a group, those left out that have ended and wait to be reaped."""
    found = []
    for file in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            # After the name in brackets: state, parent, group.
            state, _, its_group = file.read_text().rpartition(")")[2].split()[:3]
            if int(its_group) == group and state not in "ZX":
                found.append(file.parent.name)
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGINT], ids=["kill", "ctrl-c"])
def test_processes_end_with_their_parent(
    sent: signal.Signals, own: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    output = tmp_path / "r.json"
    command = [
        sys.executable, "-c", PROGRAM, "evaluate", str(tiny_bundle), "--data", str(own),
        "--save-every", "1", "--processes", "2", "--output", str(output),
    ]  # fmt: skip
    said = tmp_path / "said.txt"
    with (
        said.open("w") as stderr,
        subprocess.Popen(command, start_new_session=True, stderr=stderr) as process,
    ):
        # Those of Ctrl-C are met while they import.
        begun = "r.json.partial/[!.]*.npz" if sent == signal.SIGKILL else "r.json.partial/sed-trt-*/*"
        while not list(tmp_path.glob(begun)):
            assert process.poll() is None
            time.sleep(0.01)
        while len(running_in_group(process.pid)) < 4:
            assert process.poll() is None
            time.sleep(0.01)
        if sent == signal.SIGKILL:
            process.kill()
        else:
            # A terminal sends it to all of them.
            os.killpg(process.pid, sent)
        deadline = time.monotonic() + 30
        while running_in_group(process.pid):
            if time.monotonic() > deadline:
                os.killpg(process.pid, signal.SIGKILL)
                pytest.fail("processes outlive their parent")
            time.sleep(0.1)
    if sent == signal.SIGINT:
        assert process.returncode == 130
        assert said.read_text().splitlines() == ["sed-trt: error: interrupted"]
        assert not list(tmp_path.glob("r.json*"))
