"""Frames of video files: times, rotation, broken frames and files that are none."""

import struct
import sys
from pathlib import Path

import numpy as np
import pytest

from sed_trt.errors import InputError
from sed_trt.tests.video.clips import TIME_BASE, broken, changed, marked, packets, plains, write_clip
from sed_trt.video.reading import Frame, VideoReader


def read(path: Path) -> tuple[VideoReader, list[Frame]]:
    """All frames of a file, which stays open."""
    reader = VideoReader(path)
    return reader, list(reader.frames())


def times(reader: VideoReader, frames: list[Frame]) -> list[float]:
    return [float(frame.time * reader.time_base) for frame in frames]


def test_variable_frame_rate_keeps_its_times(tmp_path: Path) -> None:
    irregular = [0, 7, 50, 51, 180, 181, 600]
    path = write_clip(tmp_path / "vfr.mp4", plains(7), irregular)
    reader, frames = read(path)
    assert times(reader, frames) == pytest.approx([float(time * TIME_BASE) for time in irregular])
    assert [frame.number for frame in frames] == list(range(7))
    assert (reader.frames_expected, reader.broken, reader.ended_early) == (7, 0, None)
    assert reader.rgb(frames[1].picture)[20, 30].tolist() == pytest.approx([0, 255, 0], abs=12)


@pytest.mark.parametrize(
    ("matrix", "size", "corner"),
    [
        ((1, 0, 0, 1), (64, 48), (0, 0)),
        ((0, 1, -1, 0), (48, 64), (0, -1)),
        ((-1, 0, 0, -1), (64, 48), (-1, -1)),
        ((0, -1, 1, 0), (48, 64), (-1, 0)),
    ],
    ids=["none", "clockwise", "half", "counter-clockwise"],
)
def test_rotation_is_honoured(
    matrix: tuple[int, int, int, int], size: tuple[int, int], corner: tuple[int, int], tmp_path: Path
) -> None:
    def transform(a: int, b: int, c: int, d: int) -> bytes:
        return struct.pack(">6i", a << 16, b << 16, 0, c << 16, d << 16, 0)

    upright = write_clip(tmp_path / "upright.mp4", [marked()] * 2)
    data = upright.read_bytes()
    # The track's header; the file's header holds a matrix as well.
    start = data.index(b"tkhd") + 44
    assert data[start : start + 24] == transform(1, 0, 0, 1)
    path = tmp_path / "turned.mp4"
    path.write_bytes(data[:start] + transform(*matrix) + data[start + 24 :])
    reader, frames = read(path)
    assert (reader.width, reader.height) == size
    image = reader.rgb(frames[0].picture)
    assert image.shape == (reader.height, reader.width, 3)
    bright = {(row, column) for row in (0, -1) for column in (0, -1) if image[row, column].mean() > 200}
    assert bright == {corner}


def test_odd_sizes_are_read_as_they_are(tmp_path: Path) -> None:
    reader, frames = read(write_clip(tmp_path / "odd.mkv", plains(2, 33, 47), codec="ffv1"))
    assert (reader.width, reader.height) == (47, 33)
    assert reader.rgb(frames[0].picture).shape == (33, 47, 3)


@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
def test_a_broken_frame_keeps_its_place(codec: str, tmp_path: Path) -> None:
    whole = write_clip(tmp_path / "whole.mp4", plains(12), codec=codec)
    # In decoding order; the times of both say where they belong.
    damaged = broken(whole, [3, 7], tmp_path / "damaged.mp4")
    places = sorted(float(packets(whole, "video")[number].pts) for number in (3, 7))
    reader, frames = read(damaged)
    assert len(frames) == 12
    gaps = [float(frame.time) for frame in frames if frame.picture is None]
    assert set(places) <= set(gaps)
    assert reader.broken == len(gaps)
    assert times(reader, frames) == pytest.approx([number / 25 for number in range(12)], abs=1e-3)


def test_a_truncated_file_gives_what_it_holds(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (20, 48, 64, 3), dtype=np.uint8)
    whole = write_clip(tmp_path / "whole.mp4", list(noise), container={"movflags": "faststart"})
    path = tmp_path / "truncated.mp4"
    path.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    reader, frames = read(path)
    assert 0 < len(frames) < 20
    assert frames[0].picture is not None
    assert "of the 20 frames it announces" in str(reader.ended_early)


def test_a_file_without_its_index_is_refused(clip: Path, tmp_path: Path) -> None:
    path = tmp_path / "half.mp4"
    path.write_bytes(clip.read_bytes()[: clip.stat().st_size // 2])
    with pytest.raises(InputError, match=r"half\.mp4: is not a video that FFmpeg can read"):
        VideoReader(path)


def test_a_file_of_broken_frames_is_refused(clip: Path, tmp_path: Path) -> None:
    count = len(packets(clip, "video"))
    path = broken(clip, range(count), tmp_path / "noise.mp4")
    with pytest.raises(InputError, match=r"noise\.mp4: none of its frames can be decoded"):
        VideoReader(path)


def test_a_file_without_video_is_refused(tmp_path: Path) -> None:
    import av

    path = tmp_path / "sound.wav"
    with av.open(str(path), "w") as file:
        stream = file.add_stream("pcm_s16le", rate=8000)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 1600), np.int16), format="s16", layout="stereo")
        sound.sample_rate = 8000
        file.mux(stream.encode(sound))
    with pytest.raises(InputError, match=r"sound\.wav: has no video stream \(audio\)"):
        VideoReader(path)


def test_an_unknown_codec_is_refused(clip: Path, tmp_path: Path) -> None:
    path = changed(clip, b"avc1", b"zzzz", tmp_path / "codec.mp4")
    with pytest.raises(InputError, match=r"codec\.mp4: its video codec is not known"):
        VideoReader(path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("absent.mp4", None, "no such file"),
        ("empty.mp4", b"", "is not a video"),
        ("text.mp4", b"no video at all", "is not a video"),
        (".", None, "is a folder"),
        ("a\0b.mp4", None, "no such file"),
    ],
)
def test_other_files_are_refused(name: str, content: bytes | None, message: str, tmp_path: Path) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=message) as error:
        VideoReader(path)
    assert "\n" not in str(error.value)


def test_a_missing_package_names_the_extra(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(InputError, match=r"pip install -e '\.\[video\]'"):
        VideoReader(clip)
