"""`sed-trt video` from file to files."""

import json
import re
import sys
from pathlib import Path

import pytest

from sed_trt.bundle import Bundle
from sed_trt.cli.main import main
from sed_trt.tests.fakes.bundle import write_fake_bundle
from sed_trt.tests.fakes.engines import FakeEngines
from sed_trt.tests.video.clips import broken, plains, times, write_clip

CATEGORIES = ["--categories", "red, green, blue"]


@pytest.fixture
def bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A bundle whose stages are in numpy."""

    def open_fakes(bundle: Bundle, *options: object) -> FakeEngines:
        return FakeEngines()

    monkeypatch.setattr("sed_trt.runtime.segmenter.open_engines", open_fakes)
    return write_fake_bundle(tmp_path / "fake")


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """Eight frames, the fifth of which is broken."""
    whole = write_clip(tmp_path / "whole.mkv", plains(8), codec="mjpeg")
    return broken(whole, [4], tmp_path / "clip.mkv")


def video(bundle: Path, *arguments: str | Path) -> int:
    return main(["video", str(bundle), *map(str, arguments), "--short-side", "0"])


def test_a_clip_to_a_clip(
    bundle: Path, clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out.mp4"
    options = ["--every", "2", "--smooth", "0.5", "--images-at-once", "2"]
    assert video(bundle, clip, *CATEGORIES, "-o", output, "--labels", tmp_path / "labels", *options) == 0
    captured = capsys.readouterr()
    lines = captured.out.splitlines()
    assert lines[0].startswith(f"{clip}: 8 frames, 4 of them segmented, 1 broken | ")
    assert lines[1] == "video by libx264, audio none"
    assert re.fullmatch(
        r"flicker: labels change at (none|[\d.]+%) before smoothing and (none|[\d.]+%) after, .*", lines[2]
    )
    assert re.fullmatch(rf"sed-trt: {re.escape(str(clip))}: 1 broken frame; [^\n]+\n", captured.err)
    assert len(times(output)) == len(list((tmp_path / "labels").glob("*.png"))) == 8


def test_json_report_is_all_of_stdout(
    bundle: Path, clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rle = tmp_path / "out.jsonl"
    assert video(bundle, clip, *CATEGORIES, "--rle", rle, "--json") == 0
    content = json.loads(capsys.readouterr().out)
    assert (content["frames"], content["segmented"], content["broken"]) == (8, 7, 1)
    assert content["flicker"]["before"]["still"] == 0.0
    assert content["flicker"]["before"]["flicker"] is None
    assert content["flicker"]["after"] is None
    assert (content["encoder"], content["audio"]) == (None, None)
    assert content["written"] == [str(rle)]
    assert {entry["name"] for entry in content["categories"]} == {"red", "green", "blue"}
    assert len(rle.read_text().splitlines()) == 8


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["absent.mp4", *CATEGORIES, "-o", "x.mp4"], "'absent.mp4': no such file"),
        (["CLIP", "-o", "x.mp4"], "give one of --categories"),
        (["CLIP", *CATEGORIES], "give at least one of an output video"),
        (["CLIP", *CATEGORIES, "-o", "absent/x.mp4"], "absent/x.mp4: cannot be written"),
        (["CLIP", *CATEGORIES, "--rle", "absent/x.jsonl"], "absent/x.jsonl: cannot be written"),
        (["CLIP", *CATEGORIES, "-o", "x.mp4", "--smooth", "2"], "smooth: 2.0 is out of range"),
        (["CLIP", *CATEGORIES, "-o", "x.mp4", "--every", "0"], "--every"),
        (["CLIP", *CATEGORIES, "-o", "x.mp4", "--rejection", "best"], "rejection: 'best'"),
    ],
)
def test_errors_are_one_line(
    arguments: list[str],
    message: str,
    bundle: Path,
    clip: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert video(bundle, *(str(clip) if word == "CLIP" else word for word in arguments)) == 2
    captured = capsys.readouterr()
    assert re.fullmatch(r"sed-trt: error: [^\n]+\n", captured.err)
    assert message in captured.err
    assert captured.out == ""
    assert not (tmp_path / "x.mp4").exists()


def test_a_missing_package_names_the_extra(
    bundle: Path, clip: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    assert video(bundle, clip, *CATEGORIES, "-o", "x.mp4") == 2
    assert "pip install -e '.[video]'" in capsys.readouterr().err
