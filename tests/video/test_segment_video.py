"""Videos from file to files: labels, times, audio, held and broken frames, interruptions."""

import itertools
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco

from sed_trt.errors import InputError
from sed_trt.runtime import Segmenter
from sed_trt.tests.fakes.engines import FakeEngines, colour_vocabulary
from sed_trt.tests.video import clips
from sed_trt.tests.video.clips import broken, images, packets, plain, plains, times, write_clip
from sed_trt.video import VideoReport, segment_video
from sed_trt.video import writing as writing_module
from sed_trt.video.reading import Frame
from sed_trt.video.segment import _Feed

NAMES = colour_vocabulary("red", "green", "blue")
# For what comes at once unless a test fails.
PATIENCE_S = 60.0


def run(segmenter: Segmenter, source: Path, output: Path | None, **options: Any) -> VideoReport:
    return segment_video(segmenter, source, NAMES, output, short_side=None, **options)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_all_outputs_of_a_clip(segmenter: Segmenter, clip: Path, tmp_path: Path) -> None:
    output, folder, rle = tmp_path / "out.mp4", tmp_path / "labels", tmp_path / "out.jsonl"
    seen: list[tuple[int, int | None]] = []
    report = run(
        segmenter, clip, output, labels=folder, rle=rle, alpha=1.0, progress=lambda *done: seen.append(done)
    )
    assert (report.frames, report.segmented, report.broken, report.audio) == (12, 12, 0, "copied")
    assert report.notes == []
    assert {entry["name"]: entry["share"] for entry in report.categories} == pytest.approx(
        {"red": 1 / 3, "green": 1 / 3, "blue": 1 / 3}
    )
    assert seen == [(number + 1, 12) for number in range(12)]
    assert times(output) == pytest.approx(times(clip))
    names = sorted(path.name for path in folder.iterdir())
    assert names == [f"{number:06d}.png" for number in range(12)]
    table = clips.COLOURS
    for number, (content, image) in enumerate(zip(lines(rle), images(output), strict=True)):
        with Image.open(folder / names[number]) as labels:
            assert (np.asarray(labels) == number % 3).all()
            colour = labels.convert("RGB").getpixel((0, 0))
        assert (content["frame"], content["state"]) == (number, "segmented")
        assert content["time_s"] == pytest.approx(number / 25)
        (category,) = content["categories"]
        assert (category["index"], category["name"]) == (number % 3, NAMES.names[number % 3])
        assert coco.area(category["rle"]) == 48 * 64
        # The legend is below the image, which alpha = 1 makes the label's colour.
        assert image.shape[0] > 48
        assert image[24, 32].tolist() == pytest.approx(colour, abs=12), table


def test_audio_is_copied_without_encoding(segmenter: Segmenter, clip: Path, tmp_path: Path) -> None:
    run(segmenter, clip, tmp_path / "out.mkv")
    run(segmenter, clip, tmp_path / "out.mp4")
    before = packets(clip, "audio")
    assert len(before) > 5
    starts = [float(packet.pts * packet.time_base) for packet in before]
    assert starts[0] < 0
    # Matroska has no negative times, and counts milliseconds.
    for name, first in (("out.mp4", 0), ("out.mkv", 1)):
        after = packets(tmp_path / name, "audio")
        assert [bytes(packet) for packet in after] == [bytes(packet) for packet in before[first:]]
        times_after = [float(packet.pts * packet.time_base) for packet in after]
        assert times_after == pytest.approx(starts[first:], abs=1e-3)
        assert times(tmp_path / name) == pytest.approx(times(clip), abs=1e-3)


def test_a_transport_stream_starts_at_0(segmenter: Segmenter, tmp_path: Path) -> None:
    source = write_clip(tmp_path / "broadcast.ts", plains(12), audio="aac", start_s=90)
    assert times(source)[0] > 80
    report = run(segmenter, source, tmp_path / "out.mp4", rle=tmp_path / "out.jsonl")
    assert (report.frames, report.broken, report.audio) == (12, 0, "copied")
    start = min(
        float(packet.pts * packet.time_base)
        for kind in ("audio", "video")
        for packet in packets(source, kind)
    )
    expected = [time - start for time in times(source)]
    assert expected[0] < 1
    assert times(tmp_path / "out.mp4") == pytest.approx(expected, abs=1e-3)
    assert [content["time_s"] for content in lines(tmp_path / "out.jsonl")] == pytest.approx(
        expected, abs=1e-3
    )


def test_audio_that_the_container_refuses_is_dropped(
    segmenter: Segmenter, clip: Path, tmp_path: Path
) -> None:
    report = run(segmenter, clip, tmp_path / "out.webm")
    assert packets(tmp_path / "out.webm", "audio") == []
    assert (report.encoder, report.frames) == ("libvpx-vp9", 12)
    (note,) = report.notes
    assert "audio dropped: 'webm' format does not support 'aac'" in note


def test_variable_rate_and_odd_sizes_are_kept(segmenter: Segmenter, tmp_path: Path) -> None:
    irregular = [0, 7, 50, 51, 180]
    source = write_clip(tmp_path / "odd.mkv", plains(5, 33, 47), irregular, codec="ffv1")
    report = run(segmenter, source, tmp_path / "out.mp4", labels=tmp_path / "labels", legend=False)
    assert (report.frames, report.audio) == (5, "none")
    assert times(tmp_path / "out.mp4") == pytest.approx(times(source), abs=1e-6)
    # Colours are stored for 2 x 2 pixels, so the video is even; label maps are not.
    assert images(tmp_path / "out.mp4")[0].shape == (34, 48, 3)
    with Image.open(tmp_path / "labels" / "000000.png") as labels:
        assert labels.size == (47, 33)


def test_without_x264_mpeg4_is_used(
    segmenter: Segmenter, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoders: dict[str, dict[str, str]] = {"no_such_encoder": {}, "mpeg4": {}}
    monkeypatch.setattr(writing_module, "_ENCODERS", encoders)
    report = run(segmenter, clip, tmp_path / "out.mp4")
    assert (report.encoder, report.audio) == ("mpeg4", "copied")
    assert times(tmp_path / "out.mp4") == pytest.approx(times(clip), abs=1e-4)


@pytest.mark.parametrize(("every", "batch"), [(1, 4), (3, 1), (5, 4), (20, 2)])
def test_labels_are_held_between_segmented_frames(
    every: int, batch: int, segmenter: Segmenter, clip: Path, tmp_path: Path
) -> None:
    report = run(segmenter, clip, None, rle=tmp_path / "out.jsonl", every=every, batch=batch)
    assert (report.frames, report.segmented) == (12, -(-12 // every))
    for number, content in enumerate(lines(tmp_path / "out.jsonl")):
        assert content["state"] == ("held" if number % every else "segmented")
        (category,) = content["categories"]
        assert category["index"] == number // every * every % 3


def test_the_last_picture_and_labels_stand_in_for_a_broken_frame(
    segmenter: Segmenter, tmp_path: Path
) -> None:
    # Without frames that refer to others only the broken one is lost.
    whole = write_clip(tmp_path / "whole.mkv", plains(8), codec="mjpeg")
    source = broken(whole, [4], tmp_path / "damaged.mkv")
    report = run(segmenter, source, tmp_path / "out.mp4", rle=tmp_path / "out.jsonl", alpha=0.0, legend=False)
    assert (report.frames, report.segmented, report.broken) == (8, 7, 1)
    assert "1 broken frame" in report.notes[0]
    contents = lines(tmp_path / "out.jsonl")
    assert [content["state"] for content in contents].index("broken") == 4
    assert contents[4]["categories"] == contents[3]["categories"]
    shown = images(tmp_path / "out.mp4")
    assert len(shown) == 8
    np.testing.assert_allclose(shown[4].astype(float), plain(3), atol=24)
    np.testing.assert_allclose(shown[5].astype(float), plain(5), atol=24)


@pytest.mark.parametrize("images_at_once", [1, 2])
def test_smoothing_keeps_the_order_and_lessens_flicker(
    images_at_once: int, fake_bundle: Path, tmp_path: Path
) -> None:
    # Grey, a little more red, once a little more green: the image hardly changes, the label does.
    shades = [np.full((48, 64, 3), 120, np.uint8) for _ in range(10)]
    for number, image in enumerate(shades):
        image[..., 1 if number == 5 else 0] += 4
    source = write_clip(tmp_path / "grey.mkv", shades, codec="ffv1")
    segmenter = Segmenter(fake_bundle, engines=FakeEngines(images_at_once=images_at_once))
    raw = run(segmenter, source, None, rle=tmp_path / "raw.jsonl").flicker
    assert raw["before"] == pytest.approx({"flicker": 2 / 9, "changed": 2 / 9, "still": 1.0})
    assert raw["after"] is None
    smooth = run(segmenter, source, None, rle=tmp_path / "smooth.jsonl", smooth=0.9).flicker
    assert smooth["before"] == raw["before"]
    assert smooth["after"]["flicker"] == 0.0
    indices = {content["categories"][0]["index"] for content in lines(tmp_path / "smooth.jsonl")}
    assert indices == {0}


def test_frames_are_labelled_as_images_are(tiny_bundle: Path, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (4, 6, 8, 3), dtype=np.uint8)
    frames = [image.repeat(8, axis=0).repeat(8, axis=1) for image in noise]
    source = write_clip(tmp_path / "scene.mp4", frames)
    segmenter = Segmenter(tiny_bundle, "onnxruntime")
    vocabulary = segmenter.vocabulary(["sky", "road", "tree, trees", "red car"])
    options: dict[str, Any] = {"short_side": 64, "batch": 1}
    segment_video(segmenter, source, vocabulary, labels=tmp_path / "raw", **options)
    segment_video(segmenter, source, vocabulary, labels=tmp_path / "still", smooth=1e-6, **options)
    for number, image in enumerate(images(source)):
        expected = segmenter(image, vocabulary, short_side=64).labels
        with Image.open(tmp_path / "raw" / f"{number:06d}.png") as labels:
            np.testing.assert_array_equal(np.asarray(labels), expected)
        # A past without weight changes nothing but the rounding of the logits.
        with Image.open(tmp_path / "still" / f"{number:06d}.png") as labels:
            assert (np.asarray(labels) == expected).mean() > 0.99


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("bad luck")])
def test_an_interruption_leaves_no_file_and_no_thread(
    error: BaseException, segmenter: Segmenter, tmp_path: Path
) -> None:
    source = write_clip(tmp_path / "long.mp4", plains(90))
    folder = tmp_path / "out"
    folder.mkdir()
    threads = set(threading.enumerate())

    def interrupt(done: int, _total: int | None) -> None:
        if done == 3:
            raise error

    with pytest.raises(type(error)):
        run(segmenter, source, folder / "out.mp4", rle=folder / "out.jsonl", every=2, progress=interrupt)
    assert list(folder.iterdir()) == []
    assert set(threading.enumerate()) <= threads


def test_a_failure_keeps_the_file_that_was_there(segmenter: Segmenter, clip: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.mp4"
    output.write_text("earlier")

    def fail(_done: int, _total: int | None) -> None:
        raise RuntimeError("bad luck")

    with pytest.raises(RuntimeError):
        run(segmenter, clip, output, progress=fail)
    assert output.read_text() == "earlier"


def test_reading_waits_for_room_and_stops() -> None:
    taken = 0

    def endless() -> Iterator[Frame]:
        nonlocal taken
        for taken in itertools.count():
            yield Frame(taken, taken, "picture")

    reader: Any = SimpleNamespace(frames=endless, rgb=lambda picture: picture)
    feed = _Feed(reader, every=3, room=7)
    given: list[Any] = []
    thread = threading.Thread(target=lambda: given.extend(feed.images()), daemon=True)
    thread.start()
    while taken < 7 and thread.is_alive():
        thread.join(0.01)
    thread.join(0.2)
    # The eighth frame waits; of seven the first, fourth and seventh are segmented.
    assert taken == 7
    assert thread.is_alive()
    feed.stop()
    thread.join(PATIENCE_S)
    assert not thread.is_alive()
    assert len(given) == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"every": 0}, "every: 0 is too few"),
        ({"smooth": 1.0}, "smooth: 1.0 is out of range"),
        ({"alpha": 1.5}, "alpha: 1.5 is out of range"),
        ({"batch": 0}, "batch: 0 is too few"),
        ({"name": "clip.gif"}, "none of the encoders"),
        ({"name": "clip.xyz"}, "FFmpeg knows no container"),
        ({"name": "absent/clip.mp4"}, "cannot be written"),
        ({"name": None}, "give at least one of"),
    ],
)
def test_bad_arguments_are_one_clear_line(
    options: dict[str, Any], message: str, segmenter: Segmenter, clip: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    name = options.pop("name", "clip.mp4")
    with pytest.raises(InputError, match=message) as error:
        run(segmenter, clip, None if name is None else folder / name, **options)
    assert "\n" not in str(error.value)
    assert list(folder.iterdir()) == []


def test_the_source_is_not_overwritten(segmenter: Segmenter, clip: Path) -> None:
    with pytest.raises(InputError, match="is the video that is read"):
        run(segmenter, clip, clip)
