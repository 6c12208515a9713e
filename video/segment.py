"""`segment_video`: a video in; an overlay video, label maps and run lengths out."""

import json
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..errors import InputError
from ..files import make_folder, replacing, resolved
from ..runtime import Rejection, Result, Segmenter, StreamItem, TopK, Vocabulary
from ..runtime.result import write_labels
from ..runtime.rle import encode_labels
from ..runtime.segmenter import Categories
from ..runtime.stream import map_threaded, pool_size
from .drawing import Drawing, check_alpha
from .flicker import Flicker, ImageChange, sample
from .reading import Frame, VideoReader
from .smoothing import Smoother, check_weight
from .warming import BucketWarmer
from .writing import VideoWriter

# Frames read ahead beyond those that wait for a batch.
_FRAMES_AHEAD = 16
# Threads that draw overlays and write label maps; each holds two frames.
_MAX_DRAWING_THREADS = 4
# The network decides on a grid of an input's side over this.
_GRID_DIVISOR = 4

# Frames done, and their expected total if it is known.
Progress = Callable[[int, int | None], None]


@dataclass
class VideoReport:
    """What `segment_video` did.

    Attributes:
        frames: written, those held and broken ones included.
        segmented: frames that went through the network.
        broken: frames that could not be decoded or segmented.
        seconds: wall time.
        encoder: FFmpeg's name of the video encoder; None without an output video.
        audio: "copied", "none", or "dropped: " and why; None without an output video.
        flicker: see `video.flicker`; "before" smoothing and "after", which is None without smoothing.
        categories: "index", "name" and "share" of all pixels of the segmented frames, largest first.
        kept: mean numbers of categories left after the three rejection points.
        notes: what the user should know, one line each.
    """

    frames: int = 0
    segmented: int = 0
    broken: int = 0
    seconds: float = 0.0
    encoder: str | None = None
    audio: str | None = None
    flicker: dict[str, Any] = field(default_factory=dict)
    categories: list[dict[str, Any]] = field(default_factory=list)
    kept: list[float] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True, eq=False)
class _Shown:
    """A frame with the labels that are shown on it.

    Attributes:
        frame: its number and time.
        picture: its own, or the last that was decoded.
        result: of this frame or of the last that was segmented; None before the first.
        state: "segmented", "held" (labels of an earlier frame) or "broken".
    """

    frame: Frame
    picture: Any
    result: Result | None
    state: str


def segment_video(
    segmenter: Segmenter,
    source: str | Path,
    categories: Categories,
    output: str | Path | None = None,
    *,
    labels: str | Path | None = None,
    rle: str | Path | None = None,
    rejection: Rejection | None = None,
    short_side: int | None = 640,
    batch: int = 4,
    every: int = 1,
    smooth: float = 0.0,
    alpha: float = 0.5,
    legend: bool = True,
    progress: Progress | None = None,
) -> VideoReport:
    """Segment a video; decoding, the network, drawing and encoding overlap, and memory stays constant.

    Args:
        segmenter: of a bundle.
        source: the video file.
        categories: of `Segmenter.vocabulary`, or what that takes.
        output: a video with coloured labels, whose suffix says the container, with the source's times and
            audio; None writes none.
        labels: a folder for the label map of each frame, NUMBER.png as `sed-trt segment` writes it.
        rle: a file of JSON lines, one for each frame, with COCO's compressed run lengths by category.
        rejection: as in a call of the segmenter.
        short_side: likewise.
        batch: frames that are encoded together; on a CPU it gains nothing.
        every: each so many frames one is segmented, and its labels stay until the next.
        smooth: weight of the past in temporal smoothing, 0 (none) to 1 (not included); see `video.smoothing`.
        alpha: weight of the colours in the output, 0 to 1.
        legend: whether the output names the categories below the image, if they are 40 or fewer.
        progress: called after each frame.

    A frame that cannot be decoded is counted, and the last picture and labels stand in its place. Files get
    their names when they are complete; an exception leaves none of them, except label maps of frames.

    Raises:
        InputError: PyAV is missing; the source is no readable video; a value is out of range; the output is
            the source, its container is unknown, or it cannot be written; or as a call of the segmenter.
    """
    targets = _Targets(*(None if each is None else Path(each) for each in (output, labels, rle)))
    _check(Path(source), targets, every, smooth, alpha)
    start = time.perf_counter()
    report = VideoReport()
    with ExitStack() as stack:
        reader = stack.enter_context(closing(VideoReader(Path(source))))
        vocabulary = categories if isinstance(categories, Vocabulary) else segmenter.vocabulary(categories)
        if targets.labels is not None:
            make_folder(targets.labels)
        lines = None
        if targets.rle is not None:
            temporary = stack.enter_context(replacing(targets.rle))
            lines = stack.enter_context(temporary.open("w", encoding="utf-8"))
        drawing = Drawing(reader.width, reader.height, vocabulary.names, alpha, legend)
        writer = None
        if targets.output is not None:
            temporary = stack.enter_context(replacing(targets.output))
            writer = VideoWriter(temporary, targets.output, reader, drawing.width, drawing.height)
            stack.enter_context(writer)
        warmer = stack.enter_context(BucketWarmer(segmenter, vocabulary, short_side))
        smoother = Smoother(smooth) if smooth else None
        feed = _Feed(reader, every, every * (batch + 1) + _FRAMES_AHEAD)
        items = segmenter.stream(
            feed.images(), vocabulary, rejection or TopK(), short_side, batch, transform=smoother
        )
        stack.enter_context(closing(items))
        tally = _Tally(segmenter.bundle.manifest.image_size // _GRID_DIVISOR, smoother)

        def watched() -> Iterator[_Shown]:
            for shown in feed.shown(items):
                if shown.state == "segmented" and shown.result is not None:
                    tally.add(shown.result)
                    warmer.update(shown.result.kept)
                yield shown

        def finish(shown: _Shown) -> tuple[_Shown, np.ndarray | None, str]:
            result = shown.result
            if targets.labels is not None and result is not None:
                write_labels(targets.labels / f"{shown.frame.number:06d}.png", result)
            line = "" if lines is None else _line(shown, float(shown.frame.time * reader.time_base))
            if writer is None:
                return shown, None, line
            own = result is not None and shown.state == "segmented"
            image = result.image if own and result is not None else reader.rgb(shown.picture)
            return shown, drawing.draw(image, None if result is None else result.labels), line

        threads = min(_MAX_DRAWING_THREADS, pool_size())
        finished = stack.enter_context(closing(map_threaded(finish, watched(), threads)))
        # The thread that reads may wait for room, and `finished` and `items` wait for it when they close.
        stack.callback(feed.stop)
        for shown, image, line in finished:
            if writer is not None and image is not None:
                writer.write(image, shown.frame.time)
            if lines is not None:
                lines.write(line + "\n")
            report.frames += 1
            if progress is not None:
                progress(report.frames, reader.frames_expected)
    if writer is not None:
        report.encoder, report.audio = writer.encoder, writer.audio
    tally.write(report, vocabulary.names)
    report.broken = reader.broken + feed.failed
    report.notes = _notes(report, reader, feed)
    report.seconds = time.perf_counter() - start
    return report


class _Targets(NamedTuple):
    """Where to write what; None is nowhere."""

    output: Path | None
    labels: Path | None
    rle: Path | None


def _check(source: Path, targets: _Targets, every: int, smooth: float, alpha: float) -> None:
    if not any(targets):
        raise InputError(
            "give at least one of an output video, a folder of label maps and a file of run lengths"
        )
    if every < 1:
        raise InputError(f"every: {every} is too few, expected at least 1 (each frame is segmented)")
    check_weight(smooth)
    check_alpha(alpha)
    for path in (targets.output, targets.rle):
        if path is not None and resolved(path) == resolved(source):
            raise InputError(f"{path}: is the video that is read; choose another name for what is written")


class _Feed:
    """Hands the frames to be segmented to a stream, and puts all frames together with its results.

    Attributes:
        failed: frames that the stream refused.
        failure: why it refused the first of them.
    """

    def __init__(self, reader: VideoReader, every: int, room: int) -> None:
        """`room` frames with a picture are in memory at a time, outside the stream."""
        self._reader = reader
        self._every = every
        self._room = threading.Semaphore(room)
        self._stopped = threading.Event()
        # Frames with whether the stream gives a result for them; read by one thread, taken by another.
        self._waiting: deque[tuple[Frame, bool]] = deque()
        self.failed = 0
        self.failure: str | None = None

    def images(self) -> Iterator[np.ndarray]:
        """The frames to be segmented, uint8 RGB; waits while there is no room."""
        until_next = 0
        for frame in self._reader.frames():
            if frame.picture is not None:
                self._room.acquire()
            if self._stopped.is_set():
                return
            due = frame.picture is not None and until_next <= 0
            self._waiting.append((frame, due))
            if due:
                until_next = self._every
                yield self._reader.rgb(frame.picture)
            until_next -= 1

    def stop(self) -> None:
        """Let `images` end where it waits for room."""
        self._stopped.set()
        self._room.release()

    def shown(self, items: Generator[StreamItem, None, None]) -> Iterator[_Shown]:
        """All frames in order, each with its own labels or the last ones."""
        picture: Any = None
        result: Result | None = None
        while True:
            item = next(items, None)
            while self._waiting:
                frame, segmented = self._waiting.popleft()
                state = "held"
                if frame.picture is None:
                    state = "broken"
                else:
                    self._room.release()
                    picture = frame.picture
                if segmented:
                    # The stream gives one item for each such frame, in order.
                    assert item is not None
                    if item.result is None:
                        state, self.failed = "broken", self.failed + 1
                        self.failure = self.failure or item.error
                    else:
                        state, result = "segmented", item.result
                yield _Shown(frame, picture, result, state)
                if segmented:
                    break
            else:
                if item is None:
                    return


class _Tally:
    """Counts over the segmented frames of a video."""

    def __init__(self, side: int, smoother: Smoother | None) -> None:
        """`side` is that of the grid on which flicker is measured, in pixels."""
        self._side = side
        self._smoother = smoother
        self._change, self._flicker = ImageChange(side), Flicker()
        self._frames = 0
        self._pixels: Counter[int] = Counter()
        self._kept = np.zeros(3)

    def add(self, result: Result) -> None:
        """Take the result of the next segmented frame."""
        self._frames += 1
        self._pixels.update(result.pixel_counts)
        self._kept += result.kept
        if self._smoother is None:
            difference = self._change.update(result.image)
            self._flicker.update(sample(result.labels, self._side), difference)

    def write(self, report: VideoReport, names: tuple[str, ...]) -> None:
        """Set the fields of the report that follow from the counts."""
        report.segmented = self._frames
        total = sum(self._pixels.values())
        report.categories = [
            {"index": index, "name": names[index], "share": count / total}
            for index, count in self._pixels.most_common()
        ]
        report.kept = [round(float(kept), 2) for kept in self._kept / max(1, self._frames)]
        if self._smoother is None:
            report.flicker = {"before": self._flicker.summary(), "after": None}
        else:
            before, after = self._smoother.before, self._smoother.after
            report.flicker = {"before": before.summary(), "after": after.summary()}


def _line(shown: _Shown, seconds: float) -> str:
    """The JSON line of one frame."""
    content: dict[str, Any] = {
        "frame": shown.frame.number,
        "time_s": round(seconds, 6),
        "state": shown.state,
        "categories": [],
    }
    if (result := shown.result) is not None:
        size = list(result.labels.shape)
        content["categories"] = [
            {"index": index, "name": result.names[index], "rle": {"size": size, "counts": counts}}
            for index, counts in encode_labels(result.labels).items()
        ]
    return json.dumps(content, ensure_ascii=False)


def _notes(report: VideoReport, reader: VideoReader, feed: _Feed) -> list[str]:
    notes = []
    if reader.broken:
        notes.append(
            f"{reader.path}: {reader.broken} broken frame{'s' * (reader.broken > 1)}; "
            "the last picture and labels stand in"
        )
    if feed.failure:
        notes.append(f"{reader.path}: {feed.failed} frames were not segmented ({feed.failure})")
    if reader.ended_early:
        notes.append(f"{reader.path}: {reader.ended_early}; what was read is written")
    if report.audio is not None and report.audio.startswith("dropped"):
        notes.append(f"{reader.path}: audio {report.audio}; an .mkv output takes most codecs")
    return notes
